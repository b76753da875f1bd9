"""Matrices that are compared column by column."""

from __future__ import annotations

from typing import Any

import numpy as np


def read_matrix(values: Any, name: str) -> np.ndarray:
    """A finite matrix, float64, which is called `name` where something is wrong with it."""
    x = np.asarray(values)
    if x.ndim != 2 or 0 in x.shape or x.dtype.kind not in "biuf":
        msg = f"`{name}` must be a matrix of numbers; it has the shape {x.shape} and the type {x.dtype}."
        raise ValueError(msg)
    x = x.astype(np.float64)
    if not np.isfinite(x).all():
        msg = f"`{name}` must be finite, but has {int((~np.isfinite(x)).sum())} missing or infinite values."
        raise ValueError(msg)
    return x


def correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson correlations of the columns of one matrix with those of another; 0 with a column that is constant."""
    return np.clip(_standardized(first).T @ _standardized(second), -1, 1)


def _standardized(x: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and length 1, or of zeros."""
    low, range_ = x.min(0), np.ptp(x, axis=0)  # the range is 0 for a constant column; a standard deviation need not be
    x = np.divide(x - low, range_, out=np.zeros_like(x), where=range_ > 0)
    x = x - x.mean(0)
    length = np.sqrt((x**2).sum(0))
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)
