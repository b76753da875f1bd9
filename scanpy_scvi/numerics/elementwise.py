"""Evaluate a kernel entry by entry on dense or CSR counts, or sum it along an axis without a matrix of that size.

A kernel is a compiled function of flat float64 arrays, `kernel(x, *parameters, *outputs)`. Parameters broadcast
against x.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Kernel = Callable[..., None]
    Arrays = list[np.ndarray]

_CHUNK = 2**17  # entries evaluated at a time


def check_counts(x: Any) -> Any:
    """Return x as an array or as CSR without repeated entries; raise ValueError if it is no matrix of counts."""
    if sparse.issparse(x):
        x = x.tocsr()
        if not x.has_canonical_format:
            x = x.copy()
            x.sum_duplicates()
        values = x.data
    else:
        x = values = np.asarray(x)
    if values.dtype.kind not in "biuf":
        msg = f"`x` has type {values.dtype}; expected real numbers, dense or scipy.sparse."
        raise ValueError(msg)
    if values.size and not (values.min() >= 0 and values.max() < np.inf):
        bad = values[~((values >= 0) & (values < np.inf))].flat[0]
        msg = f"`x` contains {bad}; counts must be finite and not negative."
        raise ValueError(msg)
    return x


def check_parameter(values: Any, shape: tuple[int, ...], name: str, *, positive: bool = True) -> np.ndarray:
    """Return a parameter as an array that broadcasts to that shape, or raise ValueError."""
    array = np.asarray(values)
    try:
        fits = np.broadcast_shapes(array.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        msg = f"`{name}` has shape {array.shape}, which does not broadcast to the shape {shape} of `x`."
        raise ValueError(msg)
    if array.size and (np.isnan(array).any() or (positive and array.min() <= 0)):
        bad = array.min() if not np.isnan(array).any() else np.nan
        msg = f"`{name}` contains {bad}; it must be {'positive' if positive else 'a number'}."
        raise ValueError(msg)
    return array


def evaluate(kernel: Kernel, n_outputs: int, x: Any, parameters: tuple[np.ndarray, ...], axis: int | None) -> Arrays:
    """Evaluate the kernel at every entry of x (axis None), or its sums over cells (0) or genes (1).

    Parameters
    ----------
    kernel
        `kernel(x, *parameters, *outputs)` on flat float64 arrays.
    n_outputs
        How many outputs it has.
    x, parameters
        From :func:`check_counts` and :func:`check_parameter`.
    axis
        None, 0 or 1.

    Returns
    -------
    The outputs, float32 if x is, else float64.

    Raises
    ------
    ValueError
        If axis is something else, or if x has no two axes to sum over.

    Examples
    --------
    >>> import numpy as np
    >>> def product(x, a, out):
    ...     out[:] = x * a
    >>> evaluate(product, 1, np.eye(2), (np.array([2.0, 3.0]),), 0)
    [array([2., 3.])]
    """
    if axis is None:
        outputs = _entries(kernel, n_outputs, x, parameters)
    elif axis not in (0, 1):
        msg = f"`axis` is {axis!r}; expected None (every entry), 0 (sum over cells) or 1 (sum over genes)."
        raise ValueError(msg)
    elif x.ndim != 2:
        msg = f"`x` has {x.ndim} dimensions; sums along an axis need cells x genes."
        raise ValueError(msg)
    else:
        sums = _sparse_sums if sparse.issparse(x) else _sums
        outputs = sums(kernel, n_outputs, x, parameters, axis)
    dtype = np.float32 if x.dtype == np.float32 else np.float64
    return [output.astype(dtype, copy=False) for output in outputs]


def _entries(kernel: Kernel, n_outputs: int, x: Any, parameters: tuple[np.ndarray, ...]) -> Arrays:
    shape = x.shape
    matrix = shape if len(shape) == 2 else (1, -1) if len(shape) < 2 else (-1, shape[-1])
    views = [np.broadcast_to(p, shape).reshape(matrix) for p in parameters]
    x = x if len(shape) == 2 else x.reshape(matrix)
    result = [np.empty(x.shape, np.float32 if x.dtype == np.float32 else np.float64) for _ in range(n_outputs)]
    for rows, outputs in _chunks(kernel, n_outputs, x, views):
        for whole, output in zip(result, outputs, strict=True):
            whole[rows] = output
    return [whole.reshape(shape) for whole in result]


def _sums(kernel: Kernel, n_outputs: int, x: np.ndarray, parameters: tuple[np.ndarray, ...], axis: int) -> Arrays:
    views = [np.broadcast_to(p, x.shape) for p in parameters]
    totals = [np.zeros(x.shape[1 - axis]) for _ in range(n_outputs)]
    for rows, outputs in _chunks(kernel, n_outputs, x, views):
        for total, output in zip(totals, outputs, strict=True):
            total[rows if axis == 1 else slice(None)] += output.sum(axis)
    return totals


def _sparse_sums(kernel: Kernel, n_outputs: int, x: Any, parameters: tuple[np.ndarray, ...], axis: int) -> Arrays:
    """Sum over a CSR matrix: all entries as if they were zero, then what the stored counts change."""
    # Where the parameters are constant over cells or genes, one evaluation at zero stands for all of them.
    shape = (1, 1, *np.broadcast_shapes(*(p.shape for p in parameters)))[-2:]
    repeats = x.shape[axis] if shape[axis] == 1 else 1
    zeros = _sums(kernel, n_outputs, np.broadcast_to(0.0, shape), parameters, axis)
    totals = [np.zeros(x.shape[1 - axis]) + zero * repeats for zero in zeros]
    views = [np.broadcast_to(p, x.shape) for p in parameters]
    for start in range(0, x.nnz, _CHUNK):
        stop = min(start + _CHUNK, x.nnz)
        columns = x.indices[start:stop]
        rows = np.searchsorted(x.indptr, np.arange(start, stop), side="right") - 1
        at = [p[rows, columns] for p in views]
        stored = _call(kernel, n_outputs, x.data[start:stop], at)
        empty = _call(kernel, n_outputs, np.zeros(stop - start), at)
        for total, a, b in zip(totals, stored, empty, strict=True):
            total += np.bincount(columns if axis == 0 else rows, a - b, minlength=total.size)
    return totals


def _chunks(kernel: Kernel, n_outputs: int, x: Any, parameters: list[np.ndarray]) -> Iterator[tuple[slice, Arrays]]:
    """Yield (rows, outputs) for consecutive blocks of rows."""
    step = max(1, _CHUNK // max(1, x.shape[1]))
    for start in range(0, x.shape[0], step):
        rows = slice(start, start + step)
        block = x[rows].toarray() if sparse.issparse(x) else x[rows]
        yield rows, _call(kernel, n_outputs, block, [p[rows] for p in parameters])


def _call(kernel: Kernel, n_outputs: int, x: np.ndarray, parameters: list[np.ndarray]) -> Arrays:
    """Run the kernel on arrays of one shape."""
    inputs = [np.require(a, np.float64, ["C", "A", "W"]).ravel() for a in (x, *parameters)]
    outputs = [np.empty(x.size) for _ in range(n_outputs)]
    kernel(*inputs, *outputs)
    return [output.reshape(x.shape) for output in outputs]
