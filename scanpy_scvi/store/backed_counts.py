"""Counts that stay in a file, as a fit and its model read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..numerics.sparse import CSRRows, join_rows, row_marks, take_rows
from ..training.sources import BYTES_PER_ENTRY, CHUNK, ONE_BUFFER
from .checks import tidy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scipy import sparse

    from .stored_rows import StoredRows

NEAR = 64
"""Cells that are skipped by reading them: about what it costs to begin anew."""


class Genes(NamedTuple):
    """Which columns of the file are read, and where they go."""

    columns: np.ndarray | None
    """Columns of the file; None for all, as they are."""
    renamed: np.ndarray | None
    """The model's number of each of them, int32; None where it is its position in `columns`."""

    def of(self, chunk: sparse.csr_array) -> sparse.csr_array:
        """These genes, tidy: sorted columns, no zeros, no duplicates."""
        return tidy(chunk if self.columns is None else chunk[:, self.columns])

    def rows(self, chunk: sparse.csr_array) -> CSRRows:
        """Give tidy rows of these genes as the model counts them."""
        indices = chunk.indices.astype(np.int32, copy=False)
        indices = indices if self.renamed is None else self.renamed[indices]
        return CSRRows(chunk.indptr.astype(np.int64), indices, chunk.data.astype(np.float32, copy=False))


class BackedCounts:
    """Rows of a matrix in a file over some genes, each compared with what it was when it was first read.

    A few numbers per cell are in memory: where its entries would start, its total, and a mark of what they are.
    """

    def __init__(self, stored: StoredRows, genes: Genes, cells: FirstPass) -> None:
        self._stored, self._genes, self._marks = stored, genes, cells.marks
        self._indptr, self.totals = cells.indptr, cells.totals

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self._indptr) - 1

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
        """False: only a few numbers per cell are."""
        return False

    @property
    def together(self) -> int:
        """Cells of one chunk of the file."""
        return self._stored.together

    def rows(self, start: int, stop: int) -> CSRRows:
        """Consecutive cells."""
        return self.take(np.arange(start, stop))

    def take(self, rows: np.ndarray) -> CSRRows:
        """Any cells in the order asked for."""
        rows = np.ascontiguousarray(rows, dtype=np.int64)
        if not len(rows):
            return CSRRows(np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))
        if rows.min() < 0 or rows.max() >= self.n_cells:
            msg = f"Row numbers run from {rows.min()} to {rows.max()}, but the file has rows 0 to {self.n_cells - 1}."
            raise IndexError(msg)
        if (np.diff(rows) > 0).all():
            return self._sorted(rows)
        rising, where = np.unique(rows, return_inverse=True)
        return take_rows(*self._sorted(rising), where)

    def _sorted(self, rows: np.ndarray) -> CSRRows:
        """Cells in rising order."""
        lengths = self._indptr[rows + 1] - self._indptr[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        out = CSRRows(indptr, np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32))
        for first, last in self._runs(rows):
            for start, stop in self._stored.at_once(int(rows[first]), int(rows[last - 1]) + 1):
                a, b = np.searchsorted(rows, (start, stop))
                part = self._read(start, stop)
                part = part if b - a == stop - start else take_rows(*part, rows[a:b] - start)
                out.indices[indptr[a] : indptr[b]] = part.indices
                out.data[indptr[a] : indptr[b]] = part.data
        return out

    def _runs(self, rows: np.ndarray) -> Iterator[tuple[int, int]]:
        """Positions in `rows` that are read in one go, as between them lies little else."""
        near = max(NEAR, self.together // 2)
        ends = np.flatnonzero(np.diff(rows) > near) + 1
        return zip([0, *ends.tolist()], [*ends.tolist(), len(rows)], strict=True)

    def _read(self, start: int, stop: int) -> CSRRows:
        """Read consecutive cells, and make sure that they are what they were."""
        rows = self._genes.rows(self._genes.of(self._stored.read(start, stop)))
        other = row_marks(rows) != self._marks[start:stop]
        if other.any():
            cell = start + int(other.argmax())
            msg = (
                f"The counts of cell number {cell} in {self._stored.where} are not those that were read before: the "
                "file was changed meanwhile. Restore it, or start again with the file as it is."
            )
            raise ValueError(msg)
        return rows


class FirstPass(NamedTuple):
    """What is kept of each cell."""

    indptr: np.ndarray
    totals: np.ndarray
    marks: np.ndarray


def read_stored(stored: StoredRows, genes: Genes, check: Callable[[np.ndarray], None]) -> CSRRows | BackedCounts:
    """Go through a file once and check it; return arrays where its counts fit into one buffer, else what reads them.

    Parameters
    ----------
    stored
        The matrix.
    genes
        What is read of it.
    check
        Raises an error for values that are no counts.
    """
    lengths, totals, marks = [], [], []
    kept: list[CSRRows] = []
    room, n_cells = ONE_BUFFER, stored.shape[0]
    for start, stop in _steps(stored):
        chunk = genes.of(stored.read(start, stop))
        check(chunk.data)
        rows = genes.rows(chunk)
        lengths.append(np.diff(rows.indptr))
        totals.append(row_totals(rows))
        marks.append(row_marks(rows))
        room -= BYTES_PER_ENTRY * (len(rows.data) + stop - start)
        kept.append(rows)
        if room < 0:
            kept.clear()
    if room >= 0 and n_cells:
        return join_rows(kept)
    indptr = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    return BackedCounts(stored, genes, FirstPass(indptr, np.concatenate(totals), np.concatenate(marks)))


def row_totals(rows: CSRRows) -> np.ndarray:
    """Total count of each cell, float64."""
    sums = np.concatenate([[0.0], np.cumsum(rows.data, dtype=np.float64)])
    totals: np.ndarray = np.diff(sums[rows.indptr])
    return totals


def _steps(stored: StoredRows) -> Iterator[tuple[int, int]]:
    """Ranges of cells of a pass over all."""
    for start in range(0, stored.shape[0], CHUNK):
        yield from stored.at_once(start, min(start + CHUNK, stored.shape[0]))
