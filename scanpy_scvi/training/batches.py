"""The data of a fit in memory, and its minibatches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..modules.cells import Cells, Counts
from ..numerics.sparse import CSRRows, take_rows


@dataclass(frozen=True)
class CellTable:
    """All cells of a data set as arrays: CSR counts over the modelled genes and one row of covariates per cell."""

    counts: CSRRows
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

    def take(self, rows: np.ndarray) -> Cells:
        """Gather the cells numbered `rows`."""
        indptr, indices, data = take_rows(*self.counts, rows)
        counts = Counts(
            torch.from_numpy(indptr), torch.from_numpy(indices), torch.from_numpy(data), self.n_genes
        )
        fields = (self.log_total, self.log_size_factor, self.batch, self.labels, self.categorical, self.continuous)
        return Cells(counts, *(torch.from_numpy(f[rows]) for f in fields), torch.from_numpy(rows))


def minibatches(rows: np.ndarray, batch_size: int, rng: np.random.Generator | None = None) -> Iterator[np.ndarray]:
    """Split `rows` into nearly equal minibatches of at most `batch_size` cells and at least two, shuffled by `rng`.

    Batch normalisation has no variance to divide by in a minibatch of one cell, so the sizes are evened out.
    """
    rows = rows if rng is None else rng.permutation(rows)
    n = max(1, min(-(-len(rows) // batch_size), len(rows) // 2))
    return iter(np.array_split(rows, n))


def hold_out(n_cells: int, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split cells into training and held-out rows, both sorted; at least two of each where `share` is positive."""
    order = rng.permutation(n_cells)
    n_validation = min(max(2, round(share * n_cells)), n_cells - 2) if share > 0 else 0
    return np.sort(order[n_validation:]), np.sort(order[:n_validation])
