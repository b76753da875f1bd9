"""Counts gene by gene, for maximum-likelihood fits: each gene becomes a short list of (count, size factor, weight).

Without size factors equal counts are alike, so that a gene is its histogram: a few dozen entries, however many cells.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from ._jit import exact
from .elementwise import check_counts

_HISTOGRAM = 4096  # integers below are counted, others listed


class Columns(NamedTuple):
    """Counts by gene.

    Attributes
    ----------
    indptr, indices, data
        The positive counts in compressed sparse columns; data is float64.
    n_cells
        Number of cells.
    size_factors
        One positive number per cell; empty if all are 1.
    """

    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray
    n_cells: int
    size_factors: np.ndarray


def by_gene(x: Any, size_factors: Any = None) -> Columns:
    """Arrange counts by gene.

    Parameters
    ----------
    x
        Counts, cells x genes, dense or scipy.sparse.
    size_factors
        One positive number per cell, or None.

    Returns
    -------
    The counts by gene.

    Raises
    ------
    ValueError
        If x is not a matrix of counts with at least one cell, or if the size factors do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> by_gene(np.array([[0, 2], [1, 3]])).data
    array([1., 2., 3.])
    """
    x = check_counts(x)
    if x.ndim != 2 or x.shape[0] == 0:
        msg = f"`x` has shape {x.shape}; a fit needs cells x genes, with at least one cell."
        raise ValueError(msg)
    n_cells = x.shape[0]
    factors = np.empty(0)
    if size_factors is not None:
        factors = np.array(size_factors, dtype=np.float64)
        if factors.shape != (n_cells,) or not ((factors > 0) & (factors < np.inf)).all():
            msg = (
                f"`size_factors` must be one positive, finite number for each of the {n_cells} cells; "
                f"got shape {factors.shape}, smallest {factors.min() if factors.size else None}."
            )
            raise ValueError(msg)
    columns = sparse.csc_array(x)
    columns.eliminate_zeros()
    indptr, indices = columns.indptr.astype(np.int64), columns.indices.astype(np.int64)
    return Columns(indptr, indices, columns.data.astype(np.float64), n_cells, factors)


@exact
def entry_buffers(n_cells):
    """Scratch space for `gene_entries`: histogram, counts, size factors, weights."""
    size = n_cells + _HISTOGRAM
    return np.zeros(_HISTOGRAM, np.int64), np.empty(size), np.ones(size), np.ones(size)


@exact
def gene_entries(values, cells, n_cells, size_factors, histogram, x, s, w):
    """Write a gene's (count, size factor, weight); return how many there are."""
    if size_factors.size > 0:
        for i in range(n_cells):
            x[i], s[i] = 0.0, size_factors[i]
        for j in range(values.size):
            x[cells[j]] = values[j]
        return n_cells
    x[0], w[0], size, top = 0.0, float(n_cells - values.size), 1, 0
    for value in values:
        if value < _HISTOGRAM and value == int(value):
            histogram[int(value)] += 1
            top = max(top, int(value))
        else:
            x[size], w[size] = value, 1.0
            size += 1
    for count in range(1, top + 1):
        if histogram[count] > 0:
            x[size], w[size] = float(count), float(histogram[count])
            histogram[count] = 0
            size += 1
    return size
