"""One pass over a matrix: totals of cells and genes, and whether it holds counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from .checks import check_counts, csr_chunks

if TYPE_CHECKING:
    import anndata as ad

SAMPLE_CELLS = 1024
"""Cells kept to time a fit on."""


@dataclass(frozen=True)
class Survey:
    """What one pass over all cells and genes has seen. Totals mean nothing where `defect` is set."""

    defect: str | None
    """Why the modelled genes do not hold counts, in one sentence; None if they do."""
    cell_total: np.ndarray
    """Total over all genes, (n_cells,)."""
    modelled_total: np.ndarray
    """Total over the modelled genes, (n_cells,)."""
    gene_cells: np.ndarray
    """Cells with a count of each gene, (n_vars,)."""
    n_modelled_entries: int
    """Non-zero entries of the modelled genes."""
    n_ones: int
    """Entries equal to one, over all genes."""
    largest: float
    """Largest value, over all genes."""
    sample: sparse.csr_array
    """The first cells over the modelled genes."""

    @property
    def n_entries(self) -> int:
        """Non-zero entries over all genes."""
        return int(self.gene_cells.sum())

    @property
    def zeros(self) -> float:
        """Share of zeros over all genes."""
        return 1 - self.n_entries / max(1, len(self.cell_total) * len(self.gene_cells))


def survey(adata: ad.AnnData, matrix: object, layer: str | None, gene_mask: np.ndarray) -> Survey:
    """Go through the matrix once, in chunks if it lies on disk.

    Parameters
    ----------
    adata
        Where the matrix is from; named in messages.
    matrix
        Cells x genes, of any type that :func:`.checks.csr_chunks` reads.
    layer
        Its layer; None for `X`.
    gene_mask
        Which genes are modelled, (n_vars,).
    """
    positions = np.flatnonzero(gene_mask)
    whole = bool(gene_mask.all())
    defect: str | None = None
    gene_cells = np.zeros(len(gene_mask), np.int64)
    cell_total, modelled_total, samples = [], [], []
    n_modelled = n_ones = n_sampled = 0
    largest = 0.0
    for chunk in csr_chunks(matrix, None):
        modelled = chunk if whole else chunk[:, positions]
        defect = defect or _defect(modelled.data, adata, layer)
        gene_cells += np.bincount(chunk.indices, minlength=len(gene_mask))
        cell_total.append(_row_totals(chunk))
        modelled_total.append(_row_totals(modelled))
        n_modelled += modelled.nnz
        n_ones += int((chunk.data == 1).sum())
        largest = max(largest, float(chunk.data.max())) if chunk.nnz else largest
        if n_sampled < SAMPLE_CELLS:
            samples.append(modelled[: SAMPLE_CELLS - n_sampled].astype(np.float32))
            n_sampled += samples[-1].shape[0]
    return Survey(
        defect=defect,
        cell_total=np.concatenate(cell_total),
        modelled_total=np.concatenate(modelled_total),
        gene_cells=gene_cells,
        n_modelled_entries=n_modelled,
        n_ones=n_ones,
        largest=largest,
        sample=sparse.csr_array(sparse.vstack(samples)),
    )


def _defect(data: np.ndarray, adata: ad.AnnData, layer: str | None) -> str | None:
    try:
        check_counts(data, adata, layer)
    except ValueError as error:
        return str(error)
    return None


def _row_totals(chunk: sparse.csr_array) -> np.ndarray:
    return np.asarray(chunk.sum(axis=1, dtype=np.float64)).ravel()
