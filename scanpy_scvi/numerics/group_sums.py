"""Sums of sparse counts over groups of cells, in one pass over the counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ._jit import fused
from .sparse import CSRRows
from .special import log1p32

if TYPE_CHECKING:
    from collections.abc import Iterable


class Sums(NamedTuple):
    """Sums over the cells of each group, each (n_groups, n_genes), float64."""

    counts: np.ndarray
    positive: np.ndarray
    """Cells with a count."""
    scaled: np.ndarray
    """Counts times their cell's factor."""
    squares: np.ndarray
    """Squares of these."""
    logs: np.ndarray
    """log(1 + scaled count)."""
    log_squares: np.ndarray
    """Squares of these."""


def group_sums(
    rows: CSRRows | Iterable[CSRRows], codes: np.ndarray, factors: np.ndarray, shape: tuple[int, int]
) -> Sums:
    """Sum counts, positive counts, scaled counts, their logarithms, and squares of both over groups of cells.

    Parameters
    ----------
    rows
        Counts, cells x genes; also some cells at a time, in the order of the codes.
    codes
        Group of each cell, int64; cells with a negative code, or one that `shape` does not have, count nowhere.
    factors
        Factor of each cell, float64.
    shape
        Numbers of groups and of genes.

    Examples
    --------
    >>> import numpy as np
    >>> from scanpy_scvi.numerics.sparse import CSRRows
    >>> rows = CSRRows(np.array([0, 2, 3]), np.array([0, 1, 1]), np.array([1.0, 2.0, 4.0], np.float32))
    >>> group_sums(rows, np.array([0, 0]), np.array([1.0, 0.5]), (1, 2)).scaled
    array([[1., 4.]])
    """
    out = np.zeros((*shape, 6))
    start = 0
    for part in [rows] if isinstance(rows, CSRRows) else rows:
        stop = start + part.n_cells
        _add(*part, codes[start:stop], factors[start:stop], out)
        start = stop
    return Sums(*np.ascontiguousarray(out.transpose(2, 0, 1)))


@fused
def _add(indptr, indices, data, codes, factors, out):
    for cell in range(codes.size):
        group, factor = codes[cell], factors[cell]
        if group < 0 or group >= out.shape[0]:
            continue
        for entry in range(indptr[cell], indptr[cell + 1]):
            x = np.float64(data[entry])
            place = out[group, indices[entry]]  # side by side in memory
            place[0] += x
            place[1] += x > 0
            scaled = factor * x
            place[2] += scaled
            place[3] += scaled * scaled
            log = np.float64(log1p32(np.float32(scaled)))
            place[4] += log
            place[5] += log * log
