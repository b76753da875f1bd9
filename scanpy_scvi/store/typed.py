"""What a file holds as what it must be: numbers, names, arrays of them.

Values are told apart by their type alone, which no object can pretend, and nothing of theirs is called before. Messages
say where the value lies, what it is and what was expected; long texts are cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
import pandas as pd

from .checks import listed, short

MOST_CHARACTERS = 10_000
"""Longest name that is read."""


def is_mapping(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether a value is a mapping."""
    return issubclass(type(value), Mapping)


def at(where: str, *keys: object) -> str:
    """Place of an item: `adata.uns['scvi']['params']`, say."""
    return where + "".join(f"[{short(key)}]" for key in keys)


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    """Return a mapping of strings to anything."""
    if not is_mapping(value):
        raise TypeError(_not(where, value, "a dictionary"))
    odd = next((key for key in value if not issubclass(type(key), str)), None)
    if odd is not None:
        raise TypeError(_not(f"A key of `{where}`", odd, "a string"))
    found: Mapping[str, Any] = value
    return found


def item(found: Mapping[str, Any], key: str, where: str) -> Any:
    """Return a value that must be there."""
    if key not in found:
        msg = f"`{where}` lacks {key!r}: what is stored there is damaged. Fit again, or take an undamaged file."
        raise ValueError(msg)
    return found[key]


def text(value: Any, where: str, *, most: int = MOST_CHARACTERS) -> str:
    """Return a string of limited length."""
    if not issubclass(type(value), str):
        raise TypeError(_not(where, value, "a string"))
    found = str.__str__(value)
    if len(found) > most:
        msg = f"`{where}` has {len(found):,} characters, but at most {most:,} were expected. It is damaged."
        raise ValueError(msg)
    return found


def whole(value: Any, where: str, low: int, high: int) -> int:
    """Return a whole number within limits."""
    if not issubclass(type(value), (int, np.integer)) or issubclass(type(value), bool):
        raise TypeError(_not(where, value, "a whole number"))
    found = int(value)
    if not low <= found <= high:
        shown = found if abs(found) < 10**18 else f"{'-' if found < 0 else ''}a number of {found.bit_length()} bits"
        msg = f"`{where}` is {shown}, but a whole number from {low} to {high} was expected. It is damaged."
        raise ValueError(msg)
    return found


def real(value: Any, where: str) -> float:
    """Return a finite number."""
    if not issubclass(type(value), (int, float, np.integer, np.floating)) or issubclass(type(value), bool):
        raise TypeError(_not(where, value, "a number"))
    return float(numbers([value], where)[0])


def flag(value: Any, where: str) -> bool:
    """Return a truth value."""
    if not issubclass(type(value), (bool, np.bool_)):
        raise TypeError(_not(where, value, "True or False"))
    return bool(value)


def array(value: Any, where: str, kinds: str = "biuf") -> np.ndarray:
    """Return an array of plain real numbers, with memory of its own for each of them; from a scalar a 0-d one."""
    if issubclass(type(value), (int, float, np.number)):
        value = np.asarray(value)
    if not issubclass(type(value), np.ndarray):
        raise TypeError(_not(where, value, "an array of numbers"))
    found: np.ndarray = np.ndarray.view(value, np.ndarray)
    if found.dtype.kind not in kinds:
        msg = f"`{where}` is an array of {found.dtype.str}, but real numbers were expected. It is damaged."
        raise TypeError(msg)
    if any(step == 0 and n > 1 for step, n in zip(found.strides, found.shape, strict=True)):
        msg = f"`{where}` claims the shape {found.shape}, but holds one number for many of its places. It is damaged."
        raise ValueError(msg)
    return found


def numbers(value: Any, where: str, *, n: int | None = None, low: float = -np.inf) -> np.ndarray:
    """Return finite numbers as a float64 array of one dimension, `n` of them and none below `low`."""
    if issubclass(type(value), (list, tuple)):
        odd = next((v for v in value if not issubclass(type(v), (int, float, np.integer, np.floating))), None)
        if odd is not None:
            raise TypeError(_not(f"An element of `{where}`", odd, "a number"))
        try:
            value = np.array(list(value), dtype=np.float64)
        except OverflowError:
            value = np.array([np.inf])
    with np.errstate(over="ignore"):
        found = array(value, where).astype(np.float64).ravel()
    if n is not None and len(found) != n:
        msg = f"`{where}` has {len(found)} numbers, but {n} were expected. It is damaged."
        raise ValueError(msg)
    bad = ~(np.isfinite(found) & (found >= low))
    if bad.any():
        least = "" if low == -np.inf else f" of at least {low:g}"
        msg = (
            f"`{where}` has the value {found[bad.argmax()]:g}, but finite numbers{least} were expected. It is damaged."
        )
        raise ValueError(msg)
    return found


def names(value: Any, where: str, *, n: int | None = None, unique: bool = True) -> tuple[str, ...]:
    """Return strings, `n` of them and none twice; files give an empty list of strings back as one of numbers."""
    kind = type(value)
    if issubclass(kind, pd.api.extensions.ExtensionArray) and isinstance(value.dtype, pd.StringDtype):
        value = np.asarray(value, dtype=object)  # anndata's strings that may be missing
    if issubclass(kind, (list, tuple)):
        found = list(value)
    elif issubclass(type(value), np.ndarray):
        plain = np.ndarray.view(value, np.ndarray)
        if plain.size > max(1, plain.nbytes) or (plain.size > 1 and 0 in plain.strides):
            msg = f"`{where}` claims the shape {plain.shape}, but holds one value for all. It is damaged."
            raise ValueError(msg)
        found = plain.ravel().tolist() if plain.size else []
    else:
        raise TypeError(_not(where, value, "an array of strings"))
    odd = next((v for v in found if not issubclass(type(v), str)), None)
    if odd is not None:
        raise TypeError(_not(f"An element of `{where}`", odd, "a string"))
    strings = tuple(str.__str__(v) for v in found)
    if n is not None and len(strings) != n:
        msg = f"`{where}` has {len(strings)} names, but {n} were expected. It is damaged."
        raise ValueError(msg)
    if unique and len(set(strings)) < len(strings):
        seen: set[str] = set()
        twice = next(s for s in strings if s in seen or seen.add(s))  # type: ignore[func-returns-value]
        msg = f"`{where}` has {listed([twice])} twice, but every name must occur once. It is damaged."
        raise ValueError(msg)
    return strings


def _not(where: str, value: object, expected: str) -> str:
    place = where if where.endswith("`") else f"`{where}`"
    found = "missing" if value is None else f"of type {short(type(value).__name__, quoted=False)}"
    return f"{place} is {found}, but {expected} was expected. It is damaged."
