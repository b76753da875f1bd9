"""Log-probability of the Poisson distribution, entry by entry, and its gradient.

log p(x) = x log μ - μ - log x!,    ∂/∂μ = x / μ - 1
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .._jit import exact
from ..elementwise import check_counts, check_parameter, evaluate
from ..special import log_factorial

if TYPE_CHECKING:
    import numpy as np


@exact
def log_probability(x, mu):
    """Float64 log p(x)."""
    return (x * math.log(mu) if x > 0 else 0.0) - mu - log_factorial(x)


@exact
def _logpmf(x, mu, out):
    for i in range(out.size):
        out[i] = log_probability(x[i], mu[i])


@exact
def _gradient(x, mu, out):
    for i in range(out.size):
        out[i] = (x[i] - mu[i]) / mu[i]


def logpmf(x: Any, mu: Any, *, axis: int | None = None) -> np.ndarray:
    """Log-probability of counts under the Poisson distribution.

    Parameters
    ----------
    x
        Counts: a dense array of any shape, or a scipy.sparse matrix of cells x genes.
    mu
        Mean, positive; broadcasts against x.
    axis
        None for every entry, 0 for sums over cells (one value a gene), 1 for sums over genes (one value a cell).
        Sums of sparse counts take the zeros in closed form.

    Returns
    -------
    A dense array of x's shape, or the sums; float32 if x is float32, else float64. Computed in float64.

    Raises
    ------
    ValueError
        If x is negative or not finite, if mu is not positive, or if shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> logpmf(np.array([0.0, 1.0, 7.0]), 3.7).round(4)
    array([-3.7   , -2.3917, -3.0668])
    """
    x = check_counts(x)
    return evaluate(_logpmf, 1, x, (check_parameter(mu, x.shape, "mu"),), axis)[0]


def gradient(x: Any, mu: Any, *, axis: int | None = None) -> np.ndarray:
    """Differentiate :func:`logpmf` with respect to mu.

    Parameters
    ----------
    x, mu, axis
        As in :func:`logpmf`.

    Returns
    -------
    A dense array of x's shape, or its sums; float32 if x is float32, else float64.

    Raises
    ------
    ValueError
        As in :func:`logpmf`.

    Examples
    --------
    >>> import numpy as np
    >>> gradient(np.array([0.0, 1.0, 6.0]), 2.0)
    array([-1. , -0.5,  2. ])
    """
    x = check_counts(x)
    return evaluate(_gradient, 1, x, (check_parameter(mu, x.shape, "mu"),), axis)[0]
