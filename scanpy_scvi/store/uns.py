"""The one door to `uns`: only what every anndata version writes and reads back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

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
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        if not len(value) or all(isinstance(v, str) for v in value):
            return np.array(value, dtype=object if len(value) else float)
        value = np.asarray(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufU":
        return value.astype(object) if value.dtype.kind == "U" else value
    msg = f"{path} is of type {type(value).__name__}, which cannot be stored in a file."
    raise TypeError(msg)


def from_uns_strings(value: Any) -> tuple[str, ...]:
    """Read back a stored list of strings; an empty one comes back as an empty array of numbers."""
    return tuple(str(v) for v in np.asarray(value).ravel())
