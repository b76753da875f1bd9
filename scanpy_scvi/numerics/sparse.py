"""Rows of a CSR matrix, gathered into a minibatch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ._jit import exact, fused
from .special import log1p32

if TYPE_CHECKING:
    from collections.abc import Sequence


class CSRRows(NamedTuple):
    """A minibatch of rows in compressed form. Within a row, a column occurs at most once.

    Attributes
    ----------
    indptr
        Start of each row in `indices` and `data`, int64, rows + 1.
    indices
        Columns of the stored entries, int32.
    data
        Values of the stored entries, float32.
    """

    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray

    @property
    def n_cells(self) -> int:
        """Number of rows."""
        return len(self.indptr) - 1

    @property
    def n_entries(self) -> int:
        """Number of stored entries."""
        return len(self.data)

    @property
    def in_memory(self) -> bool:
        """True: these are arrays."""
        return True

    @property
    def together(self) -> int:
        """Consecutive rows that are best read together: any row is as near as any other."""
        return 1

    def rows(self, start: int, stop: int) -> CSRRows:
        """Consecutive rows, as views; see :func:`slice_rows`."""
        return slice_rows(self, start, stop)

    def take(self, rows: np.ndarray) -> CSRRows:
        """Rows in any order, copied; see :func:`take_rows`."""
        return take_rows(*self, rows)


@exact
def _take_rows(indptr, indices, data, rows, out_indptr, out_indices, out_data):
    end = 0
    for i in range(rows.size):
        start, stop = indptr[rows[i]], indptr[rows[i] + 1]
        for j in range(stop - start):
            out_indices[end + j] = indices[start + j]
        for j in range(stop - start):
            out_data[end + j] = data[start + j]
        end += stop - start
        out_indptr[i + 1] = end


def take_rows(indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, rows: np.ndarray) -> CSRRows:
    """Gather rows of a CSR matrix.

    Parameters
    ----------
    indptr, indices, data
        The three arrays of a CSR matrix without repeated entries; any integer and any real type.
    rows
        Row numbers, in any order, repeats allowed.

    Returns
    -------
    The rows in the order asked for, with float32 data.

    Raises
    ------
    IndexError
        If a row number lies outside the matrix.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse import csr_array
    >>> x = csr_array([[0, 1, 0], [2, 0, 3]])
    >>> take_rows(x.indptr, x.indices, x.data, [1, 0]).data
    array([2., 3., 1.], dtype=float32)
    """
    rows = np.ascontiguousarray(rows, dtype=np.int64)
    n_rows = len(indptr) - 1
    if rows.size and (rows.min() < 0 or rows.max() >= n_rows):
        msg = f"Row numbers run from {rows.min()} to {rows.max()}, but the matrix has rows 0 to {n_rows - 1}."
        raise IndexError(msg)
    if data.dtype.kind == "b" or data.dtype == np.float16:
        data = data.astype(np.float32)
    n_entries = int((indptr[rows + 1].astype(np.int64) - indptr[rows]).sum())
    out = CSRRows(np.zeros(rows.size + 1, np.int64), np.empty(n_entries, np.int32), np.empty(n_entries, np.float32))
    _take_rows(indptr, indices, data, rows, *out)
    return out


def slice_rows(rows: CSRRows, start: int, stop: int) -> CSRRows:
    """Consecutive rows of a minibatch.

    Parameters
    ----------
    rows
        A minibatch from :func:`take_rows`.
    start, stop
        The first row, and the one after the last.

    Returns
    -------
    The rows from `start` up to `stop`; columns and values are views of the minibatch's.

    Examples
    --------
    >>> import numpy as np
    >>> rows = CSRRows(np.array([0, 1, 3]), np.array([1, 0, 2]), np.float32([1, 2, 3]))
    >>> slice_rows(rows, 1, 2)
    CSRRows(indptr=array([0, 2]), indices=array([0, 2]), data=array([2., 3.], dtype=float32))
    """
    entries = slice(rows.indptr[start], rows.indptr[stop])
    return CSRRows(rows.indptr[start : stop + 1] - rows.indptr[start], rows.indices[entries], rows.data[entries])


def join_rows(parts: Sequence[CSRRows]) -> CSRRows:
    """Put minibatches one after another.

    Parameters
    ----------
    parts
        Minibatches, at least one.

    Returns
    -------
    All their rows, copied; a single minibatch is returned itself.

    Examples
    --------
    >>> import numpy as np
    >>> rows = CSRRows(np.array([0, 1]), np.array([2]), np.float32([3]))
    >>> join_rows([rows, rows])
    CSRRows(indptr=array([0, 1, 2]), indices=array([2, 2]), data=array([3., 3.], dtype=float32))
    """
    if len(parts) == 1:
        return parts[0]
    lengths = np.concatenate([np.diff(part.indptr) for part in parts])
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    return CSRRows(indptr, *(np.concatenate([part[i] for part in parts]) for i in (1, 2)))


@exact
def _marks(indptr, indices, bits, out):
    for i in range(out.size):
        total = np.uint64(0)
        for j in range(indptr[i], indptr[i + 1]):
            z = (np.uint64(bits[j]) << np.uint64(32)) | np.uint64(indices[j])  # mixed as SplitMix64 does
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            total += z ^ (z >> np.uint64(31))
        out[i] = total


def row_marks(rows: CSRRows) -> np.ndarray:
    """One number for each row, uint64, that is another one where a row has other entries (but for chance, 1e-19).

    Parameters
    ----------
    rows
        A minibatch; the order of the entries within a row does not matter.

    Returns
    -------
    A number for each row.

    Examples
    --------
    >>> import numpy as np
    >>> rows = CSRRows(np.array([0, 2, 4]), np.array([0, 1, 0, 1]), np.float32([1, 2, 2, 1]))
    >>> len(set(row_marks(rows).tolist()))
    2
    """
    out = np.empty(len(rows.indptr) - 1, np.uint64)
    _marks(rows.indptr, rows.indices, np.ascontiguousarray(rows.data, np.float32).view(np.uint32), out)
    return out


@fused
def _scatter(indptr, indices, data, log1p, out):
    out[:] = 0
    for i in range(indptr.size - 1):
        for j in range(indptr[i], indptr[i + 1]):
            out[i, indices[j]] = log1p32(data[j]) if log1p else data[j]


def to_dense(rows: CSRRows, n_genes: int, *, log1p: bool = False, out: np.ndarray | None = None) -> np.ndarray:
    """Write rows into a dense array.

    Parameters
    ----------
    rows
        A minibatch from :func:`take_rows`.
    n_genes
        Number of columns.
    log1p
        Write log(1 + x) in place of x (x must not be negative).
    out
        A float32 array (rows, n_genes) to fill, to save its allocation.

    Returns
    -------
    Float32 array, rows x n_genes; `out` where it was given.

    Raises
    ------
    ValueError
        If `out` has another shape or type.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse import csr_array
    >>> x = csr_array([[0, 1, 0], [2, 0, 3]])
    >>> to_dense(take_rows(x.indptr, x.indices, x.data, [1]), 3)
    array([[2., 0., 3.]], dtype=float32)
    """
    shape = (len(rows.indptr) - 1, n_genes)
    if out is None:
        out = np.empty(shape, np.float32)
    elif out.shape != shape or out.dtype != np.float32:
        msg = f"`out` is {out.dtype} {out.shape}; it must be float32 {shape}."
        raise ValueError(msg)
    _scatter(*rows, log1p, out)
    return out
