"""What a fit will cost, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .finding import Finding

if TYPE_CHECKING:
    from .cost import Cost

LONG = 3600.0
"""Seconds of a fit that deserve a note."""


def cost_findings(cost: Cost) -> list[Finding]:
    """Put the cost into words."""
    return [_time_finding(cost), _memory_finding(cost)]


def _time_finding(cost: Cost) -> Finding:
    if cost.seconds_per_epoch is None or cost.seconds is None:
        return Finding("note", "cost", "time: too few cells to estimate it")
    message = (
        f"time: about {in_words(cost.seconds_per_epoch)} an epoch on this machine, {in_words(cost.seconds)} if it "
        f"needs all {cost.max_epochs} (an estimate; a fit ends when its bound is flat)"
    )
    if cost.seconds > LONG:
        return Finding("note", "cost", f"{message}. Fewer genes shorten it in proportion.")
    return Finding("ok", "cost", message)


def _memory_finding(cost: Cost) -> Finding:
    layer = f"{in_bytes(cost.normalized)} for the normalized layer"
    if not cost.writes_normalized:
        layer = f"none for the normalized layer, which would take {in_bytes(cost.normalized)} and is left out"
    message = (
        f"memory: about {in_bytes(cost.memory)} on top of the data ({in_bytes(cost.counts)} counts, "
        f"{in_bytes(cost.parameters)} weights, {layer})"
    )
    if cost.free is None:
        return Finding("ok", "cost", f"{message}, an estimate")
    message += f" of {in_bytes(cost.free)} free, an estimate"
    if cost.memory > cost.free:
        return Finding("warning", "cost", f"{message}: too much. Model fewer genes, or pass `normalized=False`.")
    return Finding("ok", "cost", message)


def in_words(seconds: float) -> str:
    """Seconds with about two digits, or minutes, or hours.

    Examples
    --------
    >>> in_words(0.123), in_words(42.3), in_words(600), in_words(9000)
    ('0.12 s', '42 s', '10 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def in_bytes(size: int) -> str:
    """Bytes as MB or GB.

    Examples
    --------
    >>> in_bytes(8_400_000), in_bytes(1_260_000_000)
    ('8 MB', '1.3 GB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(size / 1e6, 1):.0f} MB"
