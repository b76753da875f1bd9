"""Results of a question to a fit -> `uns`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from .keys import check_name
from .uns import to_uns
from .write import check_writable

if TYPE_CHECKING:
    import anndata as ad


def check_slot(adata: ad.AnnData, key_added: str, fields: set[str], *, what: str = "such result") -> None:
    """Raise a ValueError where `uns[key_added]` cannot be written or holds something that lacks `fields`."""
    check_name(key_added, "key_added")
    check_writable(adata)
    entry = adata.uns.get(key_added)
    if entry is not None and not (isinstance(entry, Mapping) and fields <= set(entry)):
        msg = (
            f"`adata.uns[{key_added!r}]` exists and holds no {what}, but `key_added` would overwrite it. Pass "
            "another `key_added`, or delete it first."
        )
        raise ValueError(msg)


def write_result(adata: ad.AnnData, key_added: str, params: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """Write `uns[key_added]`: the options of the call beside tables and arrays."""
    entry: dict[str, Any] = {"params": to_uns(dict(params))}
    for name, value in content.items():
        entry[name] = _stored(value) if isinstance(value, pd.DataFrame) else to_uns(value, f"uns[{key_added!r}]")
    adata.uns[key_added] = entry


def _stored(table: pd.DataFrame) -> pd.DataFrame:
    """Return a copy with an index of strings, as files want it, and texts as categories."""
    table = table.copy()
    table.index = table.index.astype(str)
    for name in table.columns:
        if not pd.api.types.is_numeric_dtype(table[name]) and not isinstance(table[name].dtype, pd.CategoricalDtype):
            table[name] = pd.Categorical(table[name], categories=list(dict.fromkeys(table[name])))
    return table
