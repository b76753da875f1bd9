"""Log-probability of the negative binomial, entry by entry, and its gradient.

With mean μ and inverse dispersion θ (variance μ + μ² / θ),

    log p(x) = log[Γ(x + θ) / (Γ(θ) x!)] - θ log(1 + μ/θ) - x log(1 + θ/μ)
    ∂/∂μ = (x - μ) / (μ (1 + μ/θ))
    ∂/∂θ = log(1 + w) - w + digamma(x + θ) - digamma(θ) - log(1 + x/θ),    w = (x - μ) / (θ + μ)

θ = ∞ is the Poisson distribution.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from .._jit import exact
from ..elementwise import check_counts, check_parameter, evaluate
from ..poisson.pmf import log_probability as poisson_log_probability
from ..special import digamma_rising_excess, log1p_minus, log_factorial, log_rising

if TYPE_CHECKING:
    import numpy as np


_POISSON_THETA = 1e25  # from here on the difference is far below float64's resolution


class NBGradient(NamedTuple):
    """Derivatives of the negative-binomial log-probability.

    Attributes
    ----------
    mu
        With respect to the mean μ.
    theta
        With respect to the inverse dispersion θ.
    """

    mu: np.ndarray
    theta: np.ndarray


@exact
def log_probability(x, mu, theta):
    """Float64 log p(x)."""
    if theta > _POISSON_THETA:
        return poisson_log_probability(x, mu)
    zero = -theta * math.log1p(mu / theta)
    if x == 0:
        return zero
    return zero - x * math.log1p(theta / mu) + log_rising(x, theta) - log_factorial(x)


@exact
def log_probability_slopes(x, mu, theta):
    """Float64 derivatives of log p(x) in μ and in θ."""
    mu_slope = (x - mu) / (mu * (1.0 + mu / theta))
    if theta > _POISSON_THETA:
        return mu_slope, 0.0
    w = (x - mu) / (theta + mu)
    rest = log1p_minus(w) if abs(w) < 0.25 else math.log((theta + x) / (theta + mu)) - w
    return mu_slope, rest + (digamma_rising_excess(x, theta) if x > 0 else 0.0)


@exact
def _logpmf(x, mu, theta, out):
    for i in range(out.size):
        out[i] = log_probability(x[i], mu[i], theta[i])


@exact
def _gradient(x, mu, theta, d_mu, d_theta):
    for i in range(x.size):
        d_mu[i], d_theta[i] = log_probability_slopes(x[i], mu[i], theta[i])


def _parameters(x: Any, mu: Any, theta: Any) -> tuple[np.ndarray, np.ndarray]:
    return check_parameter(mu, x.shape, "mu"), check_parameter(theta, x.shape, "theta")


def logpmf(x: Any, mu: Any, theta: Any, *, axis: int | None = None) -> np.ndarray:
    """Log-probability of counts under the negative binomial with mean μ and variance μ + μ² / θ.

    Parameters
    ----------
    x
        Counts: a dense array of any shape, or a scipy.sparse matrix of cells x genes.
    mu
        Mean, positive; broadcasts against x.
    theta
        Inverse dispersion, positive; broadcasts against x. Infinity gives the Poisson distribution.
    axis
        None for every entry, 0 for sums over cells (one value a gene), 1 for sums over genes (one value a cell).
        Sums of sparse counts take the zeros in closed form.

    Returns
    -------
    A dense array of x's shape, or the sums; float32 if x is float32, else float64. Computed in float64.

    Raises
    ------
    ValueError
        If x is negative or not finite, if mu or theta is not positive, or if shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> np.exp(logpmf(np.array([0.0, 1.0, 7.0]), 3.7, 2.5)).round(6)
    array([0.103245, 0.154036, 0.049555])
    """
    x = check_counts(x)
    return evaluate(_logpmf, 1, x, _parameters(x, mu, theta), axis)[0]


def gradient(x: Any, mu: Any, theta: Any, *, axis: int | None = None) -> NBGradient:
    """Differentiate :func:`logpmf` with respect to mu and theta.

    Parameters
    ----------
    x, mu, theta, axis
        As in :func:`logpmf`.

    Returns
    -------
    Two dense arrays of x's shape, or their sums; float32 if x is float32, else float64.

    Raises
    ------
    ValueError
        As in :func:`logpmf`.

    Examples
    --------
    >>> import numpy as np
    >>> slopes = gradient(np.array([0.0, 4.0]), 2.0, 1.0)
    >>> slopes.mu.round(4), slopes.theta.round(4)
    (array([-0.3333,  0.3333]), array([-0.4319,  0.3181]))
    """
    x = check_counts(x)
    return NBGradient(*evaluate(_gradient, 2, x, _parameters(x, mu, theta), axis))
