"""The answer to a condition test -> AnnData."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from .keys import check_name
from .uns import to_uns
from .write import check_writable

if TYPE_CHECKING:
    import anndata as ad

CATEGORICAL = ("names", "group", "condition", "reference")


def check_condition_key(adata: ad.AnnData, key: str) -> None:
    """Raise a ValueError for a key that cannot be stored, or would overwrite something that is not such a result."""
    check_name(key, "key_added")
    check_writable(adata)
    entry = adata.uns.get(key)
    if entry is not None and not (isinstance(entry, Mapping) and set(entry) == {"params", "table"}):
        msg = (
            f"`adata.uns[{key!r}]` exists and holds no condition test, but `key_added` would overwrite it. Pass "
            "another `key_added`, or delete it first."
        )
        raise ValueError(msg)


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
