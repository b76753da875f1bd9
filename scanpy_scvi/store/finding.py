"""What the preflight has found, in one sentence each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from collections.abc import Iterable

Level = Literal["ok", "note", "warning", "error"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""From harmless to fatal. An error is what a fit would raise."""


class Finding(NamedTuple):
    """One line of the preflight report."""

    level: Level
    topic: str
    """What it is about, in one word, for instance `counts` or `batches`."""
    message: str
    """What was found, what it means and what to do."""


def part_of(n: int, total: int, what: str) -> str:
    """Say how many of how many have something.

    Examples
    --------
    >>> part_of(1, 1805, "cells"), part_of(3, 12, "batches")
    ('1 of 1,805 cells has', '3 of 12 batches have')
    """
    return f"{n:,} of {total:,} {what} {'has' if n == 1 else 'have'}"


def worst(findings: Iterable[Finding]) -> Level:
    """Return the highest level among findings."""
    return max((f.level for f in findings), key=LEVELS.index, default="ok")
