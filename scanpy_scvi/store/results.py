"""Results of a question to a fit -> `uns`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from .keys import check_name
from .uns import to_uns
from .write import check_writable

if TYPE_CHECKING:
    import anndata as ad


def check_slot(
    adata: ad.AnnData,
    key_added: str,
    fields: set[str],
    *,
    found: str = "holds no such result",
    beside: Iterable[tuple[str, str]] = (),
) -> None:
    """Raise a ValueError where a result cannot be written, or would overwrite something else.

    Parameters
    ----------
    adata
        Where to write.
    key_added
        Key in `uns`; an entry with `fields` is an earlier result, which may be overwritten with all that is its own.
    fields
        Keys that every such result has.
    found
        What is said of an entry that lacks them.
    beside
        Slot (`"obs"`, `"obsm"`, `"uns"`) and key of what is written beside it.
    """
    check_name(key_added, "key_added")
    check_writable(adata)
    entry = adata.uns.get(key_added)
    if isinstance(entry, Mapping) and fields <= set(entry):
        return
    taken = [f"{slot}[{key!r}]" for slot, key in (("uns", key_added), *beside) if key in getattr(adata, slot)]
    if taken:
        msg = (
            f"`adata.{taken[0]}` exists and {found}, but `key_added` would overwrite it. Pass another `key_added`, or "
            "delete it first."
        )
        raise ValueError(msg)


def write_result(adata: ad.AnnData, key_added: str, params: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """Write `uns[key_added]`: the options of the call beside tables and arrays."""
    entry: dict[str, Any] = {"params": to_uns(dict(params))}
    for name, value in content.items():
        entry[name] = storable(value, f"uns[{key_added!r}]")
    adata.uns[key_added] = entry


def storable(value: Any, path: str) -> Any:
    """Return a table, or what :func:`.to_uns` makes of anything else, as files can hold it."""
    return _stored(value) if isinstance(value, pd.DataFrame) else to_uns(value, path)


def _stored(table: pd.DataFrame) -> pd.DataFrame:
    """Return a copy with an index of strings, as files want it, and texts as categories."""
    table = table.copy()
    table.index = table.index.astype(str)
    for name in table.columns:
        if not pd.api.types.is_numeric_dtype(table[name]) and not isinstance(table[name].dtype, pd.CategoricalDtype):
            table[name] = pd.Categorical(table[name], categories=list(dict.fromkeys(table[name])))
    return table
