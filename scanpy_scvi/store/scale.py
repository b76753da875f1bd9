"""The scale of denoised expression, in words that can be read again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .typed import text

if TYPE_CHECKING:
    from collections.abc import Mapping

SCALE = "denoised_scale"
"""Key in `uns[key]`."""
PER_10K = 1e4
"""What fits of earlier versions were scaled to, which did not say it."""
OWN, PER = "counts at the cell's own library size", "counts per "


def scale_name(library_size: float | None) -> str:
    """Name the scale of proportions times a library size; None is the cell's own."""
    return OWN if library_size is None else f"{PER}{library_size:,.15g}"


def stored_library_size(entry: Mapping[str, Any], key: str) -> float | None:
    """Library size that the denoised layer of a fit is scaled to; None for the cell's own.

    Raises
    ------
    TypeError, ValueError
        Where something else is stored than :func:`scale_name` writes.
    """
    if SCALE not in entry:
        return PER_10K
    where = f"uns[{key!r}][{SCALE!r}]"
    name = text(entry[SCALE], where)
    if name == OWN:
        return None
    try:
        size = float(name.removeprefix(PER).replace(",", ""))
    except ValueError:
        size = -1.0
    if not (name.startswith(PER) and 0 < size < float("inf")):
        msg = f"`{where}` is {name[:60]!r}, but {OWN!r} or {scale_name(PER_10K)!r}, or another number, was expected."
        raise ValueError(msg)
    return size
