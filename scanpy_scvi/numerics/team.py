"""A few threads that share the work of one minibatch.

Kernels and matrix products let go of the interpreter's lock, so plain threads run them side by side. There is one team,
used by everything; nothing else may start threads of its own beside it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORTHWHILE = 4e-4
"""Seconds of work that a further thread must take over to be worth waking."""


class Team(NamedTuple):
    """The caller's thread and `size` - 1 others."""

    pool: ThreadPoolExecutor
    size: int


_team: ContextVar[Team | None] = ContextVar("team", default=None)


@contextmanager
def team_of(size: int, prepare: Callable[[], object] | None = None) -> Iterator[None]:
    """Let the code of a block share its work among `size` threads, the caller's among them.

    Parameters
    ----------
    size
        Number of threads; 1 shares nothing.
    prepare
        Called once in each further thread.
    """
    if size <= 1:
        yield
        return
    with ThreadPoolExecutor(size - 1, "scanpy_scvi", prepare) as pool:
        token = _team.set(Team(pool, size))
        try:
            yield
        finally:
            _team.reset(token)


def share(n_items: int, seconds: float, work: Callable[[int, int], None]) -> None:
    """Call `work(start, stop)` for ranges that cover 0 to `n_items`, side by side where that is worthwhile.

    Parameters
    ----------
    n_items
        Number of items, cells or genes, that can be done apart.
    seconds
        About what all of them take on one thread.
    work
        Does a range. What it writes for an item must not depend on the range.
    """
    team = _team.get()
    n_parts = 1 if team is None else min(team.size, n_items, int(seconds / WORTHWHILE))
    if team is None or n_parts < 2:
        work(0, n_items)
        return
    bounds = [n_items * part // n_parts for part in range(n_parts + 1)]
    others = [team.pool.submit(work, bounds[part], bounds[part + 1]) for part in range(1, n_parts)]
    try:
        work(0, bounds[1])
    finally:
        for other in others:
            other.result()
