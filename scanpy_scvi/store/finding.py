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


def worst(findings: Iterable[Finding]) -> Level:
    """Return the highest level among findings."""
    return max((f.level for f in findings), key=LEVELS.index, default="ok")
