"""Covariates times their weights, the same bits however many columns there are that a row has no part in.

    A += S V

A library's matrix product may sum in another order when S gets more columns, even where those are zero. Here each row
sums what is not zero, in the order of the columns, so a model that gains a column for a new batch computes for the old
ones what it did.
"""

from __future__ import annotations

import numpy as np

from ._jit import fused


@fused
def _add_design(out, design, offsets, total):
    for i in range(out.shape[0]):
        row = out[i]
        total[:] = 0
        for c in range(design.shape[1]):
            s = design[i, c]
            if s != 0:
                offset = offsets[c]
                for j in range(row.size):
                    total[j] += s * offset[j]
        for j in range(row.size):
            row[j] += total[j]


def add_design(out: np.ndarray, design: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Add S V to `out`, in place, and return it.

    Parameters
    ----------
    out
        Rows x columns, float32, contiguous.
    design
        S, rows x covariates, float32.
    offsets
        V, covariates x columns, float32.

    Examples
    --------
    >>> import numpy as np
    >>> s, v = np.array([[0, 1], [1, 2]], np.float32), np.array([[1, 2], [3, 4]], np.float32)
    >>> add_design(np.zeros((2, 2), np.float32), s, v)
    array([[ 3.,  4.],
           [ 7., 10.]], dtype=float32)
    """
    _add_design(out, np.ascontiguousarray(design), np.ascontiguousarray(offsets), np.empty(out.shape[1], np.float32))
    return out
