"""Differential expression -> AnnData, in the form that scanpy's own functions read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .results import check_slot
from .uns import to_uns

if TYPE_CHECKING:
    from collections.abc import Mapping

    import anndata as ad

FIELDS = {
    "names": ("names", "O"),
    "scores": ("scores", np.float32),
    "logfoldchanges": ("lfc_mean", np.float32),
    "pvals": ("proba_not_de", np.float64),
    "pvals_adj": ("fdr", np.float64),
}
"""scanpy's record arrays: the column of the table that each is made of, and its type."""
TABLE = "_table"
"""What is added to the key for the full table."""


def check_free(adata: ad.AnnData, key_added: str, groups: list[str]) -> None:
    """Raise a ValueError for what could not be stored, or would overwrite something that is not such a result."""
    check_slot(adata, key_added, {"params", "names"}, found="holds no ranking", beside=[("uns", f"{key_added}{TABLE}")])
    if not all(groups):
        msg = "A group has an empty name, but a name is needed to find its result. Rename the category."
        raise ValueError(msg)


def write_ranking(adata: ad.AnnData, key: str, table: pd.DataFrame, params: Mapping[str, Any]) -> None:
    """Write `uns[key]` as `sc.tl.rank_genes_groups` does, and the whole table to `uns[key + "_table"]`.

    Parameters
    ----------
    adata
        Where to write.
    key
        Key in `uns`.
    table
        One row for each group and gene, the groups one after another, each in the order of its ranking.
    params
        Options of the call; those at None are left out.
    """
    groups = list(dict.fromkeys(table["group"]))
    n_genes = len(table) // len(groups)
    entry: dict[str, Any] = {"params": to_uns(dict(params))}
    for field, (column, kind) in FIELDS.items():
        values = table[column].to_numpy().reshape(len(groups), n_genes)
        if field == "pvals_adj":  # as far as the draws can tell; scanpy's colour scales take its logarithm
            values = np.maximum(values, table["proba_not_de"].min())
        dtype = [(group, kind) for group in groups]
        entry[field] = np.rec.fromarrays(list(values.astype(kind)), dtype=dtype)
    adata.uns[key] = entry
    stored = table.reset_index(drop=True)
    stored.index = stored.index.astype(str)
    for column, names in (("group", groups), ("reference", None), ("names", sorted(set(stored["names"])))):
        stored[column] = pd.Categorical(stored[column], categories=names)
    adata.uns[key + TABLE] = stored
