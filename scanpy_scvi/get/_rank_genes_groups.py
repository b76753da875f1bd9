"""Differential expression as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ._among import among

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

TABLE = "_table"  # as in `store.ranking`, which would load torch


def stored_table(adata: AnnData, key: str) -> pd.DataFrame:
    """Return the table under ``adata.uns[key + "_table"]``, or raise a KeyError that lists the keys of results."""
    found = adata.uns.get(key + TABLE)
    if isinstance(found, pd.DataFrame):
        return found
    have = [k.removesuffix(TABLE) for k, v in adata.uns.items() if k.endswith(TABLE) and isinstance(v, pd.DataFrame)]
    advice = f"Pass key={' or key='.join(map(repr, have))}" if have else "Run sv.tl.rank_genes_groups(adata, …) first"
    msg = f"adata.uns[{key + TABLE!r}] holds no differential expression. {advice}."
    raise KeyError(msg)


def rank_genes_groups_df(
    adata: AnnData,
    group: str | Sequence[str] | None = None,
    *,
    key: str = "rank_genes_groups_scvi",
    only_de: bool = False,
    min_abs_lfc: float = 0.0,
    min_nonzero: float = 0.0,
) -> pd.DataFrame:
    """Return the full table of :func:`scanpy_scvi.tl.rank_genes_groups`.

    Parameters
    ----------
    adata
        Annotated data with a result.
    group
        Group or groups to return; all by default.
    key
        Key of the result in `uns`.
    only_de
        Whether to leave out genes that are not called.
    min_abs_lfc
        Least size of the mean log2 fold change.
    min_nonzero
        Least share of cells with a count, in the group or in the reference, whichever is larger.

    Returns
    -------
    One row for each group and gene, best first within a group:

    `group`, `reference`, `names`
        What was compared, and the gene.
    `scores`
        What the genes are ranked by: the mean of two standardised differences, of the model's mean proportions in units
        of what counting leaves uncertain, and of the log-normalised counts (Welch's t).
    `proba_de`, `proba_not_de`, `proba_up`, `proba_down`, `bayes_factor`
        Posterior probabilities, and the log odds of the first.
    `fdr`, `is_de`
        Expected share of false discoveries if this gene and all likelier ones are called, and whether it is called.
    `stability`
        Share of ten parts of the draws in which the gene would be judged as it is.
    `lfc_mean`, `lfc_median`, `lfc_std`, `lfc_low`, `lfc_high`
        Log2 fold change over the draws; the last two bound its central credible interval.
    `residual`
        Part of the mean fold change that the counts show and the decoder does not.
    `scale1`, `scale2`
        Mean proportion in the group and in the reference, as the model sees it.
    `raw1`, `raw2`, `normalized1`, `normalized2`, `nonzero1`, `nonzero2`
        Mean count, mean count per 10,000, and share of cells with a count: as observed. After
        :func:`scanpy_scvi.tl.slim` the means are what the model expects, and the share is NaN.
    `n_cells1`, `n_cells2`, `n_effective1`, `n_effective2`, `delta`, `pseudocount`
        What the comparison rests on; `n_effective` is the number of draws of equal weight that the draws are worth.

    Raises
    ------
    KeyError
        Where there is no such result or group.
    ValueError
        For `min_nonzero` where the counts had been dropped.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.cell_lines()
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=2, progress=False)
    >>> sv.tl.rank_genes_groups(adata, "cell_type", groups=["A549"], n_samples=200)
    >>> bool(sv.get.rank_genes_groups_df(adata, "A549", only_de=True)["is_de"].all())
    True
    """
    table = stored_table(adata, key)
    keep = np.ones(len(table), bool)
    if group is not None:
        keep &= among(table["group"], group, "group", key)
    if only_de:
        keep &= table["is_de"].to_numpy()
    keep &= np.abs(table["lfc_mean"].to_numpy()) >= min_abs_lfc
    if min_nonzero > 0:
        nonzero = np.maximum(table["nonzero1"], table["nonzero2"]).to_numpy()
        if np.isnan(nonzero).any():
            msg = "`min_nonzero` needs the counts, which `tl.slim` dropped before the genes were ranked. Leave it out."
            raise ValueError(msg)
        keep &= nonzero >= min_nonzero
    return table[keep].reset_index(drop=True)
