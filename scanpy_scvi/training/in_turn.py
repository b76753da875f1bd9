"""Cells in the order asked for, a minibatch after another, also where they are read from a file."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..numerics.sparse import slice_rows
from .batches import CellTable, minibatches
from .prefetch import prefetched
from .sources import read_at_once, size_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from ..modules.cells import Cells
    from .resident import ResidentTable
    from .sources import CountSource


class Part(NamedTuple):
    """A minibatch."""

    at: np.ndarray
    """Positions of its cells among those asked for, consecutive."""
    cells: Cells

    @property
    def place(self) -> slice:
        """The same as a slice."""
        return slice(int(self.at[0]), int(self.at[-1]) + 1)


def in_turn(table: CellTable | ResidentTable, size: int, rows: np.ndarray | None = None) -> Generator[Part, None, None]:
    """Minibatches of at most `size` cells of the table, in its order; with `rows`, of these cells in theirs.

    The minibatches are the same wherever the counts lie. From a file, many are read together, so that no chunk of it is
    decoded for each of them, and the next are read meanwhile.
    """
    rows = np.arange(table.n_cells) if rows is None else rows
    parts = minibatches(np.arange(len(rows)), size)
    if not isinstance(table, CellTable) or table.counts.in_memory:
        for at in parts:
            yield Part(at, table.take(rows[at]))
        return
    sets = _sets(table.counts, rows, parts)
    jobs = (partial(table.counts.take, rows[some[0][0] : some[-1][-1] + 1]) for some in sets)
    with closing(prefetched(jobs)) as read:
        for some, counts in zip(sets, read, strict=True):
            start = some[0][0]
            for at in some:
                yield Part(at, table.cells(rows[at], slice_rows(counts, at[0] - start, at[-1] + 1 - start)))


def _sets(counts: CountSource, rows: np.ndarray, parts: Iterator[np.ndarray]) -> list[list[np.ndarray]]:
    """Minibatches that are read together."""
    sets: list[list[np.ndarray]] = [[]]
    room = most = read_at_once(counts)
    for at in parts:
        n_bytes = size_of(counts, rows[at])
        if sets[-1] and n_bytes > room:
            sets.append([])
            room = most
        sets[-1].append(at)
        room -= n_bytes
    return sets
