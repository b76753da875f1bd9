"""Labels of cells, and what is summed over those of a label."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

CHUNK = 1024


class Moments(NamedTuple):
    """Means and variances (of the population) of genes, groups x genes, and cells of each group."""

    mean: np.ndarray
    var: np.ndarray
    n_cells: np.ndarray


def read_groups(labels: Any, n_cells: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Sorted names of groups and the group of each cell; the labels are called `name` where something is wrong."""
    of_cell = np.asarray(labels)
    if of_cell.shape != (n_cells,):
        msg = f"`{name}` must have one label for each of the {n_cells} cells; its shape is {of_cell.shape}."
        raise ValueError(msg)
    if pd.isna(of_cell).any():
        msg = f"`{name}` is missing for {int(pd.isna(of_cell).sum())} cells; leave them out."
        raise ValueError(msg)
    names, codes = np.unique(of_cell.astype(str), return_inverse=True)
    return names.astype(object), codes


def read_expression(values: Any, name: str, *, counts: bool) -> np.ndarray | sparse.csr_array:
    """A matrix of cells x genes, dense or CSR; it is called `name` where something is wrong with it."""
    x: Any = sparse.csr_array(values) if sparse.issparse(values) else np.asarray(values)
    if x.ndim != 2 or 0 in x.shape or x.dtype.kind not in "biuf":
        msg = f"`{name}` must be a matrix, cells x genes; it has the shape {x.shape} and the type {x.dtype}."
        raise ValueError(msg)
    data: np.ndarray = x.data if sparse.issparse(x) else x
    if not np.isfinite(data).all() or (counts and (data < 0).any()):
        msg = f"`{name}` has {'negative or ' if counts else ''}non-finite values."
        raise ValueError(msg)
    return x


def log2_cp10k(counts: np.ndarray) -> np.ndarray:
    """log2(1 + counts per ten thousand of the cell); zeros for a cell without counts."""
    total = counts.sum(1, keepdims=True)
    return np.log2(1 + np.divide(1e4 * counts, total, out=np.zeros_like(counts), where=total > 0))


def moments(x: np.ndarray | sparse.csr_array, codes: np.ndarray, n_groups: int, *, counts: bool = False) -> Moments:
    """Mean and variance of genes in each group, some cells at a time; of :func:`log2_cp10k` where x are counts.

    Squares are taken of differences to the first cell, since a gene's variance may be small beside its mean.
    """
    total, squares = np.zeros((2, n_groups, x.shape[1]))
    origin = _rows(x, 0, 1, counts=counts)
    for start in range(0, x.shape[0], CHUNK):
        values = _rows(x, start, start + CHUNK, counts=counts) - origin
        group = codes[start : start + CHUNK]
        ones = (np.ones(len(group)), (group, np.arange(len(group))))
        members = sparse.csr_array(ones, shape=(n_groups, len(group)))
        total += members @ values
        squares += members @ values**2
    n_cells = np.bincount(codes, minlength=n_groups)
    n = np.maximum(n_cells, 1)[:, None]
    mean = total / n
    return Moments(origin + mean, np.maximum(squares / n - mean**2, 0), n_cells)


def _rows(x: np.ndarray | sparse.csr_array, start: int, stop: int, *, counts: bool) -> np.ndarray:
    """Some cells, dense, on the scale on which they are averaged."""
    part: Any = x[start:stop]
    values = np.asarray(part.toarray() if sparse.issparse(part) else part, np.float64)
    return log2_cp10k(values) if counts else values
