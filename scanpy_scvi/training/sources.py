"""Where the counts of cells come from: arrays in memory, or a file that stays where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from ..numerics.sparse import CSRRows, take_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

ONE_BUFFER = 2**28
"""Bytes of counts that are held at a time: in memory at most two of these, one that is trained on and the next.

Counts that fit into one are read into it once, and then are counts in memory.
"""
MOST_KEPT = 2**28
"""Bytes of counts of held-out cells that stay in memory; more are read again after every epoch."""
CHUNK = 8192
"""Cells of a pass over all that are looked at together."""
BYTES_PER_ENTRY = 8
PARTS = 32
"""Parts of a buffer, of which two are held at a time in a pass over cells in their order."""


class CountSource(Protocol):
    """Counts of cells over the modelled genes, each row with sorted columns, without zeros or duplicates.

    :class:`.CSRRows` is one that lies in memory.
    """

    @property
    def n_cells(self) -> int:
        """Number of cells."""

    @property
    def n_entries(self) -> int:
        """Number of counts that are not zero."""

    @property
    def indptr(self) -> np.ndarray:
        """Where the entries of each cell would start in arrays of all, int64, cells + 1."""

    @property
    def in_memory(self) -> bool:
        """Whether any cell is as near as any other."""

    @property
    def together(self) -> int:
        """Consecutive cells that are best read together, since the source stores them so."""

    def rows(self, start: int, stop: int) -> CSRRows:
        """Consecutive cells."""

    def take(self, rows: np.ndarray) -> CSRRows:
        """Any cells in the order asked for, int32 columns and float32 counts."""


class Block(NamedTuple):
    """Some consecutive cells."""

    cells: slice
    rows: CSRRows


def blocks(counts: CountSource, size: int | None = None) -> Iterator[Block]:
    """All cells, `size` at a time."""
    size = CHUNK if size is None else size
    for start in range(0, counts.n_cells, size):
        stop = min(start + size, counts.n_cells)
        yield Block(slice(start, stop), counts.rows(start, stop))


def size_of(counts: CountSource, rows: np.ndarray) -> int:
    """Bytes that some cells take in memory."""
    return BYTES_PER_ENTRY * (int((counts.indptr[rows + 1] - counts.indptr[rows]).sum()) + len(rows))


class PartlyKept:
    """A source of which some cells stay in memory."""

    def __init__(self, source: CountSource, kept: np.ndarray) -> None:
        """`kept` are cells in rising order."""
        self._source, self._kept, self._rows = source, kept, source.take(kept)

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self._source.n_cells

    @property
    def n_entries(self) -> int:
        """Number of counts that are not zero."""
        return self._source.n_entries

    @property
    def indptr(self) -> np.ndarray:
        """Where the entries of each cell would start."""
        return self._source.indptr

    @property
    def in_memory(self) -> bool:
        """False: most cells are not."""
        return False

    @property
    def together(self) -> int:
        """Consecutive cells that are best read together."""
        return self._source.together

    def rows(self, start: int, stop: int) -> CSRRows:
        """Consecutive cells, from the source."""
        return self._source.rows(start, stop)

    def take(self, rows: np.ndarray) -> CSRRows:
        """Any cells; from memory where all of them are there."""
        if len(rows) and len(self._kept):
            at = np.searchsorted(self._kept, rows).clip(max=len(self._kept) - 1)
            if (self._kept[at] == rows).all():
                return take_rows(*self._rows, at)
        return self._source.take(rows)


class SomeCells:
    """Some cells of a source, that stay where they are."""

    def __init__(self, source: CountSource, rows: np.ndarray) -> None:
        self._source, self._rows = source, rows
        lengths = source.indptr[rows + 1] - source.indptr[rows]
        self._indptr = np.concatenate([[0], np.cumsum(lengths)])
        n_chunks = len(np.unique(rows // source.together))
        self._together = max(1, len(rows) // max(1, n_chunks))

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self._rows)

    @property
    def n_entries(self) -> int:
        """Number of counts that are not zero."""
        return int(self._indptr[-1])

    @property
    def indptr(self) -> np.ndarray:
        """Where the entries of each cell would start."""
        return self._indptr

    @property
    def in_memory(self) -> bool:
        """False: none of them is."""
        return False

    @property
    def together(self) -> int:
        """As many of these cells as lie in one chunk of the source, on average."""
        return self._together

    def rows(self, start: int, stop: int) -> CSRRows:
        """Consecutive ones of these cells."""
        return self._source.take(self._rows[start:stop])

    def take(self, rows: np.ndarray) -> CSRRows:
        """Any of them."""
        return self._source.take(self._rows[rows])


def some_cells(counts: CountSource, rows: np.ndarray) -> CountSource:
    """Some cells of a source: a copy of what is in memory, and of what is not nothing but which they are."""
    return counts.take(rows) if counts.in_memory else SomeCells(counts, rows)


def near(counts: CountSource) -> CountSource:
    """Counts that fit into one buffer, in memory; more stay where they are."""
    if counts.in_memory or size_of(counts, np.arange(counts.n_cells)) > ONE_BUFFER:
        return counts
    return counts.rows(0, counts.n_cells)


def read_at_once(counts: CountSource) -> int:
    """Bytes of cells that are read together in a pass over many: a few chunks of the source, if they fit."""
    chunks = 2 * BYTES_PER_ENTRY * counts.together * (counts.n_entries // max(1, counts.n_cells) + 1)
    return min(max(ONE_BUFFER // PARTS, chunks), ONE_BUFFER // 4)


def keep(counts: CountSource, rows: np.ndarray) -> CountSource:
    """Keep cells (in rising order) in memory that are read often, where they are few enough."""
    if counts.in_memory or not len(rows) or size_of(counts, rows) > MOST_KEPT:
        return counts
    return PartlyKept(counts, rows)
