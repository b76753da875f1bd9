"""Training cells in random order, one minibatch after another, also where reading one cell here and there is slow."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..numerics.sparse import CSRRows, take_rows
from .batches import CellTable, minibatches
from .prefetch import prefetched
from .ranks import Ranks
from .sources import ONE_BUFFER, CountSource, size_of

if TYPE_CHECKING:
    from collections.abc import Generator

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
    buffer, whose cells are permuted; the next buffer is read meanwhile. The cells of a minibatch are then in the order
    of the file, so that each of several processes has those of about one stretch of it, and reads little more.
    """
    if not isinstance(data, CellTable) or data.counts.in_memory:
        for part in minibatches(rows, batch_size, rng):
            yield Minibatch(data.take(ranks.mine(part)), len(part))
        return
    order = np.random.default_rng(rng.integers(2**63, size=2))  # one draw an epoch, however far the epoch gets
    sizes = np.array([len(part) for part in minibatches(rows, batch_size)])
    sets = buffers(data.counts, rows, sizes, order)
    jobs = (partial(_read, data.counts, deal(drawn, order, ranks)) for drawn in sets)
    with closing(prefetched(jobs)) as read:
        for buffer in read:
            for n, at in buffer.share.parts:
                yield Minibatch(data.cells(buffer.share.rows[at], take_rows(*buffer.counts, at)), n)


class Drawn(NamedTuple):
    """Cells that are read together, in rising order, and the sizes of the minibatches that they make."""

    rows: np.ndarray
    sizes: np.ndarray


def buffers(
    counts: CountSource, rows: np.ndarray, sizes: np.ndarray, rng: np.random.Generator, n_bytes: int | None = None
) -> list[Drawn]:
    """Split cells (in rising order) into random sets of contiguous blocks, each for whole minibatches of `sizes`."""
    n_bytes = ONE_BUFFER if n_bytes is None else n_bytes
    n_buffers = max(1, -(-size_of(counts, rows) // n_bytes))
    most = max(1, len(rows) // n_buffers // FEWEST_BLOCKS)
    length = min(max(LEAST_BLOCK, counts.together), most)
    blocks = np.array_split(rows, max(1, len(rows) // length))
    drawn = np.concatenate([blocks[k] for k in rng.permutation(len(blocks))])
    ends = np.cumsum(sizes)
    cuts = np.unique(np.searchsorted(ends, len(rows) * np.arange(1, n_buffers) / n_buffers))  # after whole minibatches
    cuts = cuts[cuts < len(sizes) - 1] + 1
    return list(map(Drawn, map(np.sort, np.split(drawn, ends[cuts - 1])), np.split(sizes, cuts)))


class Share(NamedTuple):
    """What one process has of the cells that are read together."""

    rows: np.ndarray
    """Its cells, in rising order."""
    parts: list[tuple[int, np.ndarray]]
    """The minibatches: cells that all processes have of one, and where its own are in `rows`, in rising order."""


def deal(drawn: Drawn, rng: np.random.Generator, ranks: Ranks) -> Share:
    """Deal cells into minibatches at random, and each of these, in rising order, to the processes."""
    order = rng.permutation(len(drawn.rows))
    parts = [np.sort(part) for part in np.split(order, np.cumsum(drawn.sizes)[:-1])]
    mine = [ranks.mine(part) for part in parts]
    own = np.sort(np.concatenate(mine))
    return Share(drawn.rows[own], [(len(part), np.searchsorted(own, at)) for part, at in zip(parts, mine, strict=True)])


class _Buffer(NamedTuple):
    """Cells that were read."""

    share: Share
    counts: CSRRows


def _read(counts: CountSource, mine: Share) -> _Buffer:
    return _Buffer(mine, counts.take(mine.rows))
