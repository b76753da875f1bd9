"""Product of log(1 + counts) with a dense matrix, at the cost of the stored entries.

    Y = log(1 + X) A,    ∂L/∂A = log(1 + X)ᵀ ∂L/∂Y

for the CSR rows X of a minibatch, cells x genes, and A, genes x width. Multiplications by zero are left out: at the
usual 5 to 15 % of non-zero counts this beats a dense product, whose cost is cells x genes x width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._jit import fused
from ._memory import aligned_empty
from .sparse import slice_rows
from .special import log1p32
from .team import share

if TYPE_CHECKING:
    from .sparse import CSRRows

_SECONDS = 8e-11
"""A multiplication and addition, with its loads."""


@fused
def _log1p(counts):
    values = np.empty(counts.size, np.float32)
    for j in range(counts.size):
        values[j] = log1p32(counts[j])
    return values


@fused
def _product(indptr, indices, counts, matrix, out):
    width = matrix.shape[1]
    x = _log1p(counts)
    for i in range(indptr.size - 1):
        y = out[i]
        y[:] = 0
        j, end = indptr[i], indptr[i + 1]
        while j + 8 <= end:  # eight rows at a time: y is loaded and stored once for all of them
            a, b, c, d = matrix[indices[j]], matrix[indices[j + 1]], matrix[indices[j + 2]], matrix[indices[j + 3]]
            e, f, g, h = matrix[indices[j + 4]], matrix[indices[j + 5]], matrix[indices[j + 6]], matrix[indices[j + 7]]
            for k in range(width):
                left = (x[j] * a[k] + x[j + 1] * b[k]) + (x[j + 2] * c[k] + x[j + 3] * d[k])
                right = (x[j + 4] * e[k] + x[j + 5] * f[k]) + (x[j + 6] * g[k] + x[j + 7] * h[k])
                y[k] += left + right
            j += 8
        while j < end:
            a = matrix[indices[j]]
            for k in range(width):
                y[k] += x[j] * a[k]
            j += 1


@fused
def _by_gene(indptr, indices, counts, n_genes):
    """Sort the entries by gene: end of each gene's entries, their cells, and log(1 + x)."""
    end = np.zeros(n_genes + 1, np.int64)
    cells, values = np.empty(indices.size, np.int32), np.empty(indices.size, np.float32)
    x = _log1p(counts)
    for j in range(indices.size):
        end[indices[j] + 1] += 1
    for g in range(n_genes):
        end[g + 1] += end[g]
    for i in range(indptr.size - 1):
        for j in range(indptr[i], indptr[i + 1]):
            at = end[indices[j]]
            cells[at], values[at] = i, x[j]
            end[indices[j]] = at + 1
    return end, cells, values


@fused
def _gradient(end, cells, x, slope, first, last, out):
    width = slope.shape[1]
    j = 0 if first == 0 else end[first - 1]
    for gene in range(first, last):
        y = out[gene]
        y[:] = 0
        while j + 4 <= end[gene]:
            a, b, c, d = slope[cells[j]], slope[cells[j + 1]], slope[cells[j + 2]], slope[cells[j + 3]]
            for k in range(width):
                y[k] += (x[j] * a[k] + x[j + 1] * b[k]) + (x[j + 2] * c[k] + x[j + 3] * d[k])
            j += 4
        while j < end[gene]:
            a = slope[cells[j]]
            for k in range(width):
                y[k] += x[j] * a[k]
            j += 1


def log1p_product(rows: CSRRows, matrix: np.ndarray) -> np.ndarray:
    """Compute log(1 + X) A.

    Parameters
    ----------
    rows
        Counts X of a minibatch (n cells), from :func:`scanpy_scvi.numerics.sparse.take_rows`.
    matrix
        A, float32, genes x width, C-contiguous.

    Returns
    -------
    Float32 array, n x width.

    Raises
    ------
    ValueError
        If `matrix` is no contiguous float32 matrix, or has fewer rows than there are genes.

    Examples
    --------
    >>> import numpy as np
    >>> from scanpy_scvi.numerics.sparse import take_rows
    >>> rows = take_rows(np.array([0, 2]), np.array([0, 2]), np.array([1, 3]), [0])
    >>> log1p_product(rows, np.eye(3, dtype=np.float32)).round(4)
    array([[0.6931, 0.    , 1.3863]], dtype=float32)
    """
    _check(rows, len(matrix), matrix, "matrix")
    out = aligned_empty((len(rows.indptr) - 1, matrix.shape[1]))

    def work(start: int, stop: int) -> None:
        _product(*slice_rows(rows, start, stop), matrix, out[start:stop])

    share(len(out), _SECONDS * rows.indices.size * matrix.shape[1], work)
    return out


def log1p_product_gradient(rows: CSRRows, slope: np.ndarray, n_genes: int) -> np.ndarray:
    """Compute log(1 + X)ᵀ D, the gradient of :func:`log1p_product` with respect to its matrix.

    Parameters
    ----------
    rows
        Counts X of a minibatch (n cells).
    slope
        D = ∂L/∂Y, float32, n x width, C-contiguous.
    n_genes
        Number of genes.

    Returns
    -------
    Float32 array, n_genes x width.

    Raises
    ------
    ValueError
        If shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from scanpy_scvi.numerics.sparse import take_rows
    >>> rows = take_rows(np.array([0, 2]), np.array([0, 2]), np.array([1, 3]), [0])
    >>> log1p_product_gradient(rows, np.ones((1, 1), np.float32), 3).ravel().round(4)
    array([0.6931, 0.    , 1.3863], dtype=float32)
    """
    _check(rows, n_genes, slope, "slope")
    if len(slope) != len(rows.indptr) - 1:
        msg = f"`slope` has {len(slope)} rows; expected one for each of the {len(rows.indptr) - 1} cells."
        raise ValueError(msg)
    out = aligned_empty((n_genes, slope.shape[1]))
    end, cells, x = _by_gene(*rows, n_genes)

    def work(first: int, last: int) -> None:
        _gradient(end, cells, x, slope, first, last, out)

    share(n_genes, _SECONDS * rows.indices.size * slope.shape[1], work)
    return out


def _check(rows: CSRRows, n_genes: int, array: np.ndarray, name: str) -> None:
    if array.dtype != np.float32 or array.ndim != 2 or not array.flags.c_contiguous:
        msg = f"`{name}` is {array.dtype} with {array.ndim} dimensions; expected a C-contiguous float32 matrix."
        raise ValueError(msg)
    if rows.indices.size and rows.indices.view(np.uint32).max() >= n_genes:  # seen as unsigned, negative ones are huge
        wrong = rows.indices[rows.indices.view(np.uint32) >= n_genes][0]
        msg = f"A count lies in column {wrong}; with {n_genes} genes, columns run from 0 to {n_genes - 1}."
        raise ValueError(msg)
