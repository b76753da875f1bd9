"""The answer to a condition test -> AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from .results import check_slot
from .uns import to_uns

if TYPE_CHECKING:
    from collections.abc import Mapping

    import anndata as ad

CATEGORICAL = ("names", "group", "condition", "reference")


def check_condition_key(adata: ad.AnnData, key: str) -> None:
    """Raise a ValueError for a key that cannot be stored, or would overwrite something that is not such a result."""
    check_slot(adata, key, {"params", "table"}, found="holds no condition test")


def write_condition_test(adata: ad.AnnData, key: str, table: pd.DataFrame, params: Mapping[str, Any]) -> None:
    """Write `uns[key]`: `params`, and `table` with one row for each group, condition and gene.

    Parameters
    ----------
    adata
        Where to write.
    key
        Key in `uns`.
    table
        The rows, in the order in which they are to be read.
    params
        Options of the call; those at None are left out.
    """
    stored = table.reset_index(drop=True)
    stored.index = stored.index.astype(str)
    for column in CATEGORICAL:
        names = list(dict.fromkeys(stored[column]))
        stored[column] = pd.Categorical(stored[column], categories=sorted(names) if column == "names" else names)
    adata.uns[key] = {"params": to_uns(dict(params)), "table": stored}
