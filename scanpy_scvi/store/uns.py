"""The one door to `uns`: only what every anndata version writes and reads back."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

Stored = dict[str, Any] | np.ndarray | str | bool | int | float


def to_uns(value: Any, path: str = "uns") -> Stored:
    """Turn nested options into what `.h5ad` and `.zarr` can hold.

    Mappings become dicts without their None entries (older anndata cannot open a file with None in it), sequences
    become arrays, NumPy scalars become Python's. Keys must be strings without `/`.

    Raises
    ------
    TypeError
        For anything that would not survive the way to disk and back.
    """
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or "/" in key or not key:
                msg = f"The key {key!r} in {path} cannot be stored: keys must be non-empty strings without '/'."
                raise TypeError(msg)
        return {k: to_uns(v, f"{path}[{k!r}]") for k, v in value.items() if v is not None}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (bool, float, str)) or (isinstance(value, int) and abs(value) < 2**63):
        return _plain(value)
    if isinstance(value, (list, tuple)):
        value = _as_array(value, path)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufU":
        return value.astype(object) if value.dtype.kind == "U" else value
    msg = f"{path} is of type {type(value).__name__}, which cannot be stored in a file."
    raise TypeError(msg)


def _plain(value: Any) -> bool | int | float | str:
    """Python's own type for a member of an enumeration, which files do not know."""
    value = value.value if isinstance(value, Enum) else value
    kinds: tuple[type, ...] = (bool, int, float, str)
    plain: bool | int | float | str = next(kind(value) for kind in kinds if isinstance(value, kind))
    return plain


def _as_array(values: Sequence[Any], path: str) -> np.ndarray:
    """Make an array of numbers, or of strings alone; an empty one holds numbers."""
    try:
        array = np.asarray(values) if len(values) else np.empty(0)
    except ValueError as error:
        msg = f"{path} holds sequences of unequal length, which cannot be stored in a file."
        raise TypeError(msg) from error
    if array.dtype.kind == "U" and not all(isinstance(v, (str, list, tuple)) for v in values):
        msg = f"{path} mixes strings with other values, which cannot be stored in a file."
        raise TypeError(msg)
    return array


def from_uns_strings(value: Any) -> tuple[str, ...]:
    """Read back a stored list of strings; an empty one comes back as an empty array of numbers."""
    return tuple(str(v) for v in np.asarray(value).ravel())
