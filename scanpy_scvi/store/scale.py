"""The scale of denoised expression, in words that can be read again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .typed import text

if TYPE_CHECKING:
    from collections.abc import Mapping

SCALE = "denoised_scale"
"""Key in `uns[key]`."""
PER_10K = 1e4
"""What fits of earlier versions were scaled to, which did not say it."""
OWN, PER = "counts at the cell's own library size", "counts per "
ROOTS = "squared mean roots of "


class Scale(NamedTuple):
    """What the values of a denoised layer are."""

    library_size: float | None
    """Total that proportions are scaled to; None for the cell's own."""
    roots: bool = False
    """Whether they are squares of expected square roots of counts, rather than expected counts."""


def scale_name(scale: Scale) -> str:
    """Name a scale."""
    name = OWN if scale.library_size is None else f"{PER}{scale.library_size:,.15g}"
    return ROOTS + name if scale.roots else name


def stored_scale(entry: Mapping[str, Any], key: str) -> Scale:
    """Scale of the denoised layer of a fit.

    Raises
    ------
    TypeError, ValueError
        Where something else is stored than :func:`scale_name` writes.
    """
    if SCALE not in entry:
        return Scale(PER_10K)
    where = f"uns[{key!r}][{SCALE!r}]"
    said = text(entry[SCALE], where)
    name, roots = said.removeprefix(ROOTS), said.startswith(ROOTS)
    if name == OWN:
        return Scale(None, roots)
    try:
        size = float(name.removeprefix(PER).replace(",", ""))
    except ValueError:
        size = -1.0
    if not (name.startswith(PER) and 0 < size < float("inf")):
        usual = scale_name(Scale(PER_10K))
        msg = f"`{where}` is {said[:60]!r}, but {OWN!r} or {usual!r}, or another number, was expected."
        raise ValueError(msg)
    return Scale(size, roots)
