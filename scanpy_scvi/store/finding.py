"""What an examination has found, in one sentence each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Level = Literal["ok", "note", "warning", "error"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""From harmless to fatal. An error of the preflight is what a fit would raise."""
MARKS = {"ok": "ok", "note": "note", "warning": "WARNING", "error": "ERROR"}


class Finding(NamedTuple):
    """One line of a report."""

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


def as_text(heading: str, findings: Sequence[Finding]) -> str:
    """One heading with a tally, and one line for each finding."""
    tally = {level: sum(f.level == level for f in findings) for level in reversed(LEVELS)}
    parts = [f"{n} {level}{'s' if n > 1 else ''}" for level, n in tally.items() if n and level != "ok"]
    verdict = ", ".join(parts) or "nothing to object"
    lines = [f"    {MARKS[f.level]:<7}  {f.topic:<11}  {f.message}" for f in findings]
    return "\n".join([f"{heading}: {verdict}", *lines])
