"""The data of a fit, and its minibatches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..modules.cells import Cells, Counts
from ..numerics.sparse import CSRRows
from .sources import near, some_cells

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .sources import CountSource


COLUMNS = ("log_total", "log_size_factor", "batch", "labels", "categorical", "continuous")
"""What a table has of each cell beside its counts."""


@dataclass(frozen=True)
class CellTable:
    """All cells of a data set: counts over the modelled genes and one row of covariates per cell."""

    counts: CountSource
    n_genes: int
    log_total: np.ndarray
    log_size_factor: np.ndarray
    batch: np.ndarray
    labels: np.ndarray
    categorical: np.ndarray
    continuous: np.ndarray

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.log_total)

    def subset(self, rows: np.ndarray) -> CellTable:
        """Table of the cells numbered `rows`; counts in a file stay there."""
        columns = {name: getattr(self, name)[rows] for name in COLUMNS}
        return replace(self, counts=some_cells(self.counts, rows), **columns)

    def near(self) -> CellTable:
        """The same, with its counts in memory if they fit into one buffer."""
        return replace(self, counts=near(self.counts))

    def columns(self) -> list[np.ndarray]:
        """Return all that there is of each cell beside its counts, in the order of `COLUMNS`."""
        return [getattr(self, name) for name in COLUMNS]

    def take(self, rows: np.ndarray, *, counts: bool = True) -> Cells:
        """Gather the cells numbered `rows`; with `counts=False` as if empty, since decoding needs no counts."""
        none = CSRRows(np.zeros(len(rows) + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))
        return self.cells(rows, self.counts.take(rows) if counts else none)

    def cells(self, rows: np.ndarray, counts: CSRRows) -> Cells:
        """Put the cells numbered `rows` together with their counts, which were gathered before."""
        indptr, indices, data = map(torch.from_numpy, counts)

        def gather(column: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(column[rows])

        return Cells(
            counts=Counts(indptr, indices, data, self.n_genes),
            log_total=gather(self.log_total),
            log_size_factor=gather(self.log_size_factor),
            batch=gather(self.batch),
            labels=gather(self.labels),
            categorical=gather(self.categorical),
            continuous=gather(self.continuous),
            index=torch.from_numpy(rows),
        )


def minibatches(rows: np.ndarray, batch_size: int, rng: np.random.Generator | None = None) -> Iterator[np.ndarray]:
    """Split `rows` into nearly equal minibatches of at most `batch_size` cells and at least two, shuffled by `rng`.

    Batch normalisation has no variance to divide by in a minibatch of one cell, so the sizes are evened out.
    """
    rows = rows if rng is None else rng.permutation(rows)
    n = max(1, min(-(-len(rows) // batch_size), len(rows) // 2))
    return iter(np.array_split(rows, n))


def smallest_minibatch(n_cells: int, batch_size: int, validation_size: float) -> int:
    """Cells in the smallest minibatch of a fit that holds out a share of the cells."""
    n_train = n_cells - n_held_out(n_cells, validation_size)
    return min(len(rows) for rows in minibatches(np.arange(n_train), batch_size))


def n_held_out(n_cells: int, share: float) -> int:
    """Cells that a fit holds out; at least two, and two less than all, where `share` is positive."""
    return min(max(2, round(share * n_cells)), n_cells - 2) if share > 0 else 0


def hold_out(n_cells: int, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split cells into training and held-out rows, both sorted; at least two of each where `share` is positive."""
    order = rng.permutation(n_cells)
    n_validation = n_held_out(n_cells, share)
    return np.sort(order[n_validation:]), np.sort(order[:n_validation])
