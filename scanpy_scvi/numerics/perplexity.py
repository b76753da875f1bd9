"""How near cells are to each other, as probabilities: the similarities of t-SNE.

    p_j|i = exp(-beta_i d_ij) / sum_{k != i} exp(-beta_i d_ik),    p_ij = (p_j|i + p_i|j) / 2n

with squared distances d, and for each cell the beta_i at which the entropy of p_.|i is the logarithm of a perplexity: a
soft number of neighbours. Van der Maaten and Hinton 2008, J Mach Learn Res 9:2579.
"""

from __future__ import annotations

import math

import numpy as np

from ._jit import reduction
from .special import exp_below

TOLERANCE = 1e-12
"""Difference of an entropy from its goal that is left."""
MOST_STEPS = 200
"""Steps for a cell; some six are needed, unless ties keep the entropy from its goal."""
LONGEST = 1.5
"""Longest step, in log beta."""


def joint_probabilities(squared_distances: np.ndarray, perplexity: float) -> np.ndarray:
    """Symmetric probabilities of pairs of cells, (n, n), which sum to one; float64.

    Parameters
    ----------
    squared_distances
        Between cells, (n, n); the diagonal is not looked at.
    perplexity
        Number of neighbours that a cell has, softly; more than 1 and less than n - 1.

    Examples
    --------
    >>> import numpy as np
    >>> place = np.array([0.0, 1.0, 2.0, 10.0])
    >>> joint_probabilities(np.subtract.outer(place, place) ** 2, perplexity=2.0).sum().round(12)
    np.float64(1.0)
    """
    p = conditional_probabilities(squared_distances, perplexity)
    return (p + p.T) / (2 * len(p))


def conditional_probabilities(squared_distances: np.ndarray, perplexity: float) -> np.ndarray:
    """Probabilities of the other cells around each cell, (n, n), whose rows sum to one; float64.

    Where so many cells are equally near that the entropy is larger for all beta, these have equal probabilities.

    Parameters
    ----------
    squared_distances, perplexity
        As of :func:`joint_probabilities`.

    Examples
    --------
    >>> import numpy as np
    >>> place = np.array([0.0, 1.0, 2.0, 10.0])
    >>> p = conditional_probabilities(np.subtract.outer(place, place) ** 2, perplexity=2.0)
    >>> np.exp(-(p * np.log(p, where=p > 0, out=np.zeros_like(p))).sum(1)).round(9)
    array([2., 2., 2., 2.])
    """
    p = np.zeros(squared_distances.shape)
    _search(np.ascontiguousarray(squared_distances, np.float64), math.log(perplexity), TOLERANCE, MOST_STEPS, p)
    return p


@reduction
def _search(squared, goal, tolerance, most_steps, p):
    n = len(squared)
    d, weight = np.empty(n - 1), np.empty(n - 1)
    usual = 1.0  # beta of the cell before, in units of its mean distance
    for i in range(n):
        d[:i], d[i:] = squared[i, :i], squared[i, i + 1 :]
        d -= d.min()
        scale = d.mean()
        beta, low, high = usual / scale if scale > 0 else 1.0, 0.0, np.inf
        for _ in range(most_steps):
            total, first, second = 0.0, 0.0, 0.0
            for j in range(n - 1):
                weight[j] = exp_below(-beta * d[j])
            for j in range(n - 1):
                total += weight[j]
                first += weight[j] * d[j]
                second += weight[j] * d[j] * d[j]
            mean = first / total
            excess = np.log(total) + beta * mean - goal
            if abs(excess) <= tolerance:
                usual = beta * scale
                break
            if excess > 0:
                low = beta
            else:
                high = beta
            # the entropy falls with log beta, by beta^2 times the variance of d: a short step of Newton's
            spread = beta * beta * (second / total - mean * mean)
            beta *= np.exp(min(max(excess / spread, -LONGEST), LONGEST))
            if not low < beta < high:
                beta = 2 * low if high == np.inf else 0.5 * (low + high)
        p[i, :i], p[i, i + 1 :] = weight[:i] / total, weight[i:] / total
