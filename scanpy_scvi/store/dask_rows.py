"""Cells x genes in a dask array, computed some consecutive cells at a time."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Iterator


def is_dask(matrix: object) -> bool:
    """Whether something is an array of dask, which is optional."""
    return "dask.array" in sys.modules and isinstance(matrix, sys.modules["dask.array"].Array)


def computed(matrix: Any) -> Any:
    """What a dask array stands for; anything else as it is."""
    return matrix.compute() if is_dask(matrix) else matrix


class DaskRows:
    """A dask array of NumPy or SciPy chunks, by the scheduler that the user has set."""

    def __init__(self, array: Any, where: str, most_at_once: int) -> None:
        if any(np.isnan(array.shape)):
            msg = f"{where} is a dask array whose number of cells is not known. Call its `compute_chunk_sizes()` first."
            raise ValueError(msg)
        self.shape, self.where, self._array = tuple(array.shape), where, array
        self.together = max(array.chunks[0], default=1)
        self._ends = np.cumsum(array.chunks[0])
        self._step = max(1, most_at_once // max(1, self.shape[1] * array.dtype.itemsize))

    def at_once(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Split a range of cells where chunks end: a part of a chunk costs as much as all of it."""
        while start < stop:
            within = int(np.searchsorted(self._ends, start + self._step, side="right"))
            end = int(self._ends[max(within - 1, 0)])
            if end <= start:
                end = int(self._ends[np.searchsorted(self._ends, start, side="right")])
            yield start, min(end, stop)
            start = min(end, stop)

    def read(self, start: int, stop: int) -> sparse.csr_array:
        """Consecutive cells."""
        try:
            part = self._array[start:stop].compute()
        except Exception as error:  # whatever the chunks' maker raises
            msg = f"{self.where} could not be computed for cells {start} to {stop}: {type(error).__name__}: {error}"
            raise ValueError(msg) from error
        return sparse.csr_array(part)
