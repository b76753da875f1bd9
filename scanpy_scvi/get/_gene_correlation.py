"""Correlations between genes as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..metrics._pairs import correlation_pairs

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

FIELDS = {"genes", "denoised", "observed", "null_high", "null_tail"}


def gene_correlation_df(adata: AnnData, *, key: str = "scvi_gene_correlation") -> pd.DataFrame:
    """Return what :func:`scanpy_scvi.tl.gene_correlation` found, one row for each pair of genes.

    Parameters
    ----------
    adata
        Annotated data with a result.
    key
        Key of the result in `uns`.

    Returns
    -------
    Table with the columns

    `gene1`, `gene2`
        The pair.
    `denoised`, `observed`
        Correlation of denoised expression, and of log-normalised counts.
    `null_low`, `null_high`
        Interval of the denoised correlations that unrelated genes would have.
    `null_tail`
        Share of those that are at least as large in size.
    `beyond_null`
        Whether the denoised correlation lies outside of the interval.

    Raises
    ------
    KeyError
        If there is no result under that key.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=200, density=0.3)
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=5, progress=False)
    >>> sv.tl.gene_correlation(adata, ["gene_0", "gene_1"], n_samples=500)
    >>> sv.get.gene_correlation_df(adata)[["gene1", "gene2"]].to_numpy().tolist()
    [['gene_0', 'gene_1']]
    """
    have = [k for k, v in adata.uns.items() if isinstance(v, Mapping) and set(v) >= FIELDS]
    if key not in have:
        run = "Run sv.tl.gene_correlation(adata, …) first"
        advice = f"Pass key={' or key='.join(map(repr, have))}" if have else run
        msg = f"adata.uns[{key!r}] holds no gene correlations. {advice}."
        raise KeyError(msg)
    return correlation_pairs(adata.uns[key])
