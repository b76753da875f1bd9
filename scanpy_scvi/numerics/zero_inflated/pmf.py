"""Log-probability of the zero-inflated negative binomial, entry by entry, and its gradient.

With h the zero-inflation logit, π = σ(h), c = log NB(0) and w = σ(h - c), the share of a zero that is inflation,

    log p(0) = log(e^h + e^c) - log(1 + e^h),    ∂/∂c = 1 - w,    ∂/∂h = w - π
    log p(x) = log NB(x) - log(1 + e^h),         ∂/∂h = -π        for x > 0
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from .._jit import exact
from ..elementwise import check_counts, check_parameter, evaluate
from ..negative_binomial import pmf as nb
from ..special import softplus

if TYPE_CHECKING:
    import numpy as np


_nb_log_probability, _nb_slopes = nb.log_probability, nb.log_probability_slopes


class ZINBGradient(NamedTuple):
    """Derivatives of the zero-inflated negative-binomial log-probability.

    Attributes
    ----------
    mu
        With respect to the mean μ of the negative binomial.
    theta
        With respect to the inverse dispersion θ.
    zero_logits
        With respect to the zero-inflation logit h.
    """

    mu: np.ndarray
    theta: np.ndarray
    zero_logits: np.ndarray


@exact
def log_probability(x, mu, theta, h):
    """Float64 log p(x)."""
    nb = _nb_log_probability(x, mu, theta)
    if x > 0:
        return nb - softplus(h)
    difference = math.log1p(math.exp(-abs(h - nb))) - math.log1p(math.exp(-abs(h)))
    return difference + (0.0 if h > 0 else max(h, nb))


@exact
def _sigmoid(h):
    tail = math.exp(-abs(h))
    return (1.0 if h > 0 else tail) / (1.0 + tail)


@exact
def log_probability_slopes(x, mu, theta, h):
    """Float64 derivatives of log p(x) in μ, θ and h."""
    mu_slope, theta_slope = _nb_slopes(x, mu, theta)
    pi = _sigmoid(h)
    if x > 0:
        return mu_slope, theta_slope, -pi
    gap = h - _nb_log_probability(x, mu, theta)
    rest = _sigmoid(-gap)  # 1 - w
    return rest * mu_slope, rest * theta_slope, _sigmoid(gap) - pi if h < 0 else _sigmoid(-h) - rest


@exact
def _logpmf(x, mu, theta, zero_logits, out):
    for i in range(out.size):
        out[i] = log_probability(x[i], mu[i], theta[i], zero_logits[i])


@exact
def _gradient(x, mu, theta, zero_logits, d_mu, d_theta, d_zero):
    for i in range(x.size):
        d_mu[i], d_theta[i], d_zero[i] = log_probability_slopes(x[i], mu[i], theta[i], zero_logits[i])


def _parameters(x: Any, mu: Any, theta: Any, zero_logits: Any) -> tuple[np.ndarray, ...]:
    return (
        check_parameter(mu, x.shape, "mu"),
        check_parameter(theta, x.shape, "theta"),
        check_parameter(zero_logits, x.shape, "zero_logits", positive=False),
    )


def logpmf(x: Any, mu: Any, theta: Any, zero_logits: Any, *, axis: int | None = None) -> np.ndarray:
    """Log-probability of counts under the zero-inflated negative binomial.

    A count is 0 with probability π = σ(zero_logits); otherwise it is negative binomial with mean μ and variance
    μ + μ² / θ.

    Parameters
    ----------
    x
        Counts: a dense array of any shape, or a scipy.sparse matrix of cells x genes.
    mu
        Mean of the negative binomial, positive; broadcasts against x.
    theta
        Inverse dispersion, positive; broadcasts against x. Infinity inflates the Poisson distribution.
    zero_logits
        Logit of the probability of an inflated zero; broadcasts against x. Minus infinity gives the plain family.
    axis
        None for every entry, 0 for sums over cells (one value a gene), 1 for sums over genes (one value a cell).
        Sums of sparse counts take the zeros in closed form.

    Returns
    -------
    A dense array of x's shape, or the sums; float32 if x is float32, else float64. Computed in float64.

    Raises
    ------
    ValueError
        If x is negative or not finite, if mu or theta is not positive, if a parameter is NaN, or if shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> np.exp(logpmf(np.array([0.0, 1.0, 7.0]), 3.7, 2.5, 0.0)).round(6)  # half of the mass moves to zero
    array([0.551623, 0.077018, 0.024777])
    """
    x = check_counts(x)
    return evaluate(_logpmf, 1, x, _parameters(x, mu, theta, zero_logits), axis)[0]


def gradient(x: Any, mu: Any, theta: Any, zero_logits: Any, *, axis: int | None = None) -> ZINBGradient:
    """Differentiate :func:`logpmf` with respect to mu, theta and zero_logits.

    Parameters
    ----------
    x, mu, theta, zero_logits, axis
        As in :func:`logpmf`.

    Returns
    -------
    Three dense arrays of x's shape, or their sums; float32 if x is float32, else float64.

    Raises
    ------
    ValueError
        As in :func:`logpmf`.

    Examples
    --------
    >>> import numpy as np
    >>> gradient(np.array([0.0, 4.0]), 2.0, 1.0, 0.0).zero_logits
    array([ 0.25, -0.5 ])
    """
    x = check_counts(x)
    return ZINBGradient(*evaluate(_gradient, 3, x, _parameters(x, mu, theta, zero_logits), axis))
