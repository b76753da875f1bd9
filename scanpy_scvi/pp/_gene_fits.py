"""Poisson, NB and ZINB fits of every gene."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scanpy as sc

from ..numerics import negative_binomial, poisson, zero_inflated

if TYPE_CHECKING:
    from scipy import sparse

BLOCK_ENTRIES = 2_000_000
"""Cells x genes that are fitted at a time."""


class GeneFits(NamedTuple):
    """Maximum-likelihood fits of all genes; arrays of shape (n_genes,)."""

    poisson: poisson.PoissonFit
    nb: negative_binomial.NBFit
    zinb: zero_inflated.ZINBFit


def fit_genes(counts: sparse.csc_array, size_factors: np.ndarray) -> GeneFits:
    """Fit the three families to each gene, blocks of genes in `sc.settings.n_jobs` threads.

    Parameters
    ----------
    counts
        Cells x genes.
    size_factors
        Positive, (n_cells,).
    """
    n_cells, n_genes = counts.shape
    n_blocks = max(1, min(n_genes, n_cells * n_genes // BLOCK_ENTRIES))
    blocks = [counts[:, block] for block in np.array_split(np.arange(n_genes), n_blocks)]

    def fit_block(block: sparse.csc_array) -> GeneFits:
        return GeneFits(*(family.fit(block, size_factors) for family in (poisson, negative_binomial, zero_inflated)))

    with ThreadPoolExecutor(_n_threads()) as pool:
        parts = list(pool.map(fit_block, blocks))
    families = zip(*parts, strict=True)
    return GeneFits(*(type(fits[0])(*map(np.concatenate, zip(*fits, strict=True))) for fits in families))


def _n_threads() -> int:
    n_jobs = int(sc.settings.n_jobs)
    return n_jobs if n_jobs > 0 else os.cpu_count() or 1
