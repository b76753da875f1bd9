"""Training cells in random order, one minibatch after another, also where reading one cell here and there is slow."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..numerics.sparse import CSRRows, join_rows, slice_rows, take_rows
from .batches import CellTable, minibatches
from .prefetch import prefetched
from .ranks import Ranks
from .sources import ONE_BUFFER, CountSource, size_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from ..modules.cells import Cells
    from .resident import ResidentTable

LEAST_BLOCK = 128
"""Cells of a block, at least. Measured on an .h5ad of 100 counts a cell, in cells a second of processor time: 130,000
in blocks of 16, 280,000 of 64, 900,000 of 250, 1,350,000 of 1,000."""
FEWEST_BLOCKS = 256
"""Blocks that a buffer has at least. In a file sorted by cell type each block is of one type, so the share p of a type
in a buffer of m blocks varies by sqrt(p (1 - p) / m), where that in a minibatch of 128 cells varies by
sqrt(p (1 - p) / 128) anyway. What a sorted file costs in the held-out bound falls with 1 / m: 1.8 % at 8 blocks and
0.9 % at 16, measured in small. Blocks smaller than a chunk of the file read each chunk several times, though. So a
block is as large as such a chunk, between these bounds."""


class Minibatch(NamedTuple):
    """The cells of one step."""

    cells: Cells
    """Those of this process."""
    n_cells: int
    """Of all processes."""


def training_cells(
    data: CellTable | ResidentTable,
    rows: np.ndarray,
    batch_size: int,
    rng: np.random.Generator,
    ranks: Ranks = Ranks(),  # noqa: B008  # immutable
) -> Generator[Minibatch, None, None]:
    """Minibatches of one epoch: every cell of `rows` (in rising order) once. Close the generator after use.

    In memory, the order is a permutation of all. From a file, contiguous blocks of cells are drawn at random into a
    buffer, whose cells are permuted; the next buffer is read meanwhile. Of several processes each reads all of it.
    """
    if not isinstance(data, CellTable) or data.counts.in_memory:
        for part in minibatches(rows, batch_size, rng):
            yield Minibatch(data.take(ranks.mine(part)), len(part))
        return
    order = np.random.default_rng(rng.integers(2**63, size=2))  # one draw an epoch, however far the epoch gets
    sizes = [len(part) for part in minibatches(rows, batch_size)]
    sets = buffers(data.counts, rows, order)
    jobs = (partial(_read, data.counts, cells, order.permutation(len(cells))) for cells in sets)
    with closing(prefetched(jobs)) as read:
        for cut in _cut(read, sizes):
            n = len(cut.rows)
            yield Minibatch(data.cells(ranks.mine(cut.rows), slice_rows(cut.counts, *ranks.bounds(n))), n)


def buffers(
    counts: CountSource, rows: np.ndarray, rng: np.random.Generator, n_bytes: int | None = None
) -> list[np.ndarray]:
    """Split cells (in rising order) into random sets of contiguous blocks, each set in rising order."""
    n_bytes = ONE_BUFFER if n_bytes is None else n_bytes
    n_buffers = max(1, -(-size_of(counts, rows) // n_bytes))
    most = max(1, len(rows) // n_buffers // FEWEST_BLOCKS)
    length = min(max(LEAST_BLOCK, counts.together), most)
    blocks = np.array_split(rows, max(1, len(rows) // length))
    drawn = np.array_split(rng.permutation(len(blocks)), n_buffers)
    return [np.concatenate([blocks[k] for k in np.sort(chosen)]) for chosen in drawn if len(chosen)]


class _Part(NamedTuple):
    """Some cells, by their numbers, with their counts."""

    rows: np.ndarray
    counts: CSRRows


class _Buffer(NamedTuple):
    """Cells that were read, and the order in which they are handed out."""

    rows: np.ndarray
    counts: CSRRows
    order: np.ndarray

    def part(self, start: int, stop: int) -> _Part:
        """Cells from one place of the order to another."""
        at = self.order[start:stop]
        return _Part(self.rows[at], take_rows(*self.counts, at))


def _read(counts: CountSource, rows: np.ndarray, order: np.ndarray) -> _Buffer:
    return _Buffer(rows, counts.take(rows), order)


def _cut(read: Iterator[_Buffer], sizes: list[int]) -> Iterator[_Part]:
    """Cut buffers into parts of these sizes; one may begin in one buffer and end in the next."""
    buffer, at = next(read), 0
    for size in sizes:
        parts: list[_Part] = []
        while size:
            if at == len(buffer.order):
                buffer, at = next(read), 0
            parts.append(buffer.part(at, at + size))
            n = len(parts[-1].rows)
            at, size = at + n, size - n
        yield parts[0] if len(parts) == 1 else _joined(parts)


def _joined(parts: list[_Part]) -> _Part:
    return _Part(np.concatenate([part.rows for part in parts]), join_rows([part.counts for part in parts]))
