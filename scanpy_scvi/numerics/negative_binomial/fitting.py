"""Maximum-likelihood fit of a negative binomial to each gene.

With size factors s, μ_ng = s_n m_g. For a given θ the log-likelihood is concave in log m_g, and Newton's method finds

    Σ_n (x_n - μ_n) / (1 + μ_n / θ) = 0

(without size factors, m_g is the mean whatever θ is). At that m_g(θ) the derivative of the log-likelihood in log θ is
the derivative of its profile; its root is bracketed, from the estimate of moments outwards, and found by the Illinois
rule.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .._jit import exact
from ..columns import by_gene, entry_buffers, gene_entries
from .pmf import log_probability, log_probability_slopes

THETA_MIN, THETA_MAX = 1e-8, 1e6
_TOLERANCE = 1e-8  # of log m and log θ


class NBFit(NamedTuple):
    """Negative-binomial fit of every gene.

    Attributes
    ----------
    mean
        Mean of a cell whose size factor is 1; 0 for a gene without counts.
    theta
        Inverse dispersion, from 1e-8 to 1e6; 1e6, in effect a Poisson distribution, where the counts vary no more than
        Poisson counts do; NaN for a gene without counts.
    log_likelihood
        Its maximum, summed over cells.
    """

    mean: np.ndarray
    theta: np.ndarray
    log_likelihood: np.ndarray


@exact
def log_likelihood_of(x, s, w, size, mean, theta):
    """Log-likelihood of a gene's entries."""
    total = 0.0
    for j in range(size):
        total += w[j] * log_probability(x[j], s[j] * mean, theta)
    return total


@exact
def _best_mean(x, s, w, size, mean, theta):
    """Newton's method in log mean; concave, so that only the length of a step needs a limit."""
    for _ in range(100):
        slope, curvature = 0.0, 0.0
        for j in range(size):
            mu = s[j] * mean
            scale = 1.0 / (1.0 + mu / theta)
            slope += w[j] * (x[j] - mu) * scale
            curvature += w[j] * mu * (1.0 + x[j] / theta) * scale * scale
        step = min(max(slope / curvature, -2.0), 2.0)
        mean *= math.exp(step)
        if abs(step) < _TOLERANCE:
            break
    return mean


@exact
def _profile_slope(x, s, w, size, mean, log_theta):
    """Best mean for this θ, and the derivative of the profile log-likelihood in log θ."""
    theta = math.exp(log_theta)
    mean = _best_mean(x, s, w, size, mean, theta)
    slope = 0.0
    for j in range(size):
        slope += w[j] * log_probability_slopes(x[j], s[j] * mean, theta)[1]
    return mean, theta * slope


@exact
def _moment_log_theta(x, s, w, size, mean):
    """Log θ by Σ [(x - μ)² - μ] = Σ μ² / θ."""
    squares, excess = 0.0, 0.0
    for j in range(size):
        mu = s[j] * mean
        squares += w[j] * mu * mu
        excess += w[j] * ((x[j] - mu) ** 2 - mu)
    theta = squares / excess if excess > 0 else 1e3
    return math.log(min(max(theta, 1e-4), 1e3))


@exact
def fit_gene(x, s, w, size, mean):
    """Mean and θ of a gene with counts, from a first guess of the mean."""
    bottom, top = math.log(THETA_MIN), math.log(THETA_MAX)
    a = _moment_log_theta(x, s, w, size, mean)
    mean, slope_a = _profile_slope(x, s, w, size, mean, a)
    # Step outwards, uphill, until the slope changes its sign.
    stride = 0.5 if slope_a > 0 else -0.5
    b, slope_b = a, slope_a
    while slope_a * slope_b > 0:
        if b == top:
            return mean, THETA_MAX
        if b == bottom:
            return mean, THETA_MIN
        a, slope_a = b, slope_b
        b = min(max(b + stride, bottom), top)
        stride *= 2.0
        mean, slope_b = _profile_slope(x, s, w, size, mean, b)
    c = b
    for _ in range(100):
        if slope_b == 0 or abs(b - a) < _TOLERANCE:
            break
        c = b - slope_b * (b - a) / (slope_b - slope_a)
        mean, slope_c = _profile_slope(x, s, w, size, mean, c)
        if slope_c * slope_b < 0:
            a, slope_a = b, slope_b
        else:
            slope_a *= 0.5
        if abs(c - b) < _TOLERANCE:
            break
        b, slope_b = c, slope_c
    return mean, math.exp(c)


@exact
def _fit(indptr, cells, values, n_cells, size_factors, mean, theta, log_likelihood):
    histogram, x, s, w = entry_buffers(n_cells)
    exposure = size_factors.sum() if size_factors.size > 0 else float(n_cells)
    for g in range(mean.size):
        at = slice(indptr[g], indptr[g + 1])
        if indptr[g] == indptr[g + 1]:
            theta[g] = np.nan
            continue
        size = gene_entries(values[at], cells[at], n_cells, size_factors, histogram, x, s, w)
        mean[g], theta[g] = fit_gene(x, s, w, size, values[at].sum() / exposure)
        log_likelihood[g] = log_likelihood_of(x, s, w, size, mean[g], theta[g])


def fit(x: Any, size_factors: Any = None) -> NBFit:
    """Fit a negative binomial to each gene by maximum likelihood.

    Parameters
    ----------
    x
        Counts, cells x genes: a dense array or a scipy.sparse matrix, which stays sparse.
    size_factors
        One positive number per cell, by which its means are multiplied; None for 1.

    Returns
    -------
    Mean, inverse dispersion θ and log-likelihood of every gene, float64. θ is 1e6 where the counts vary no more than
    Poisson counts. A gene without counts has mean 0, θ NaN and log-likelihood 0.

    Raises
    ------
    ValueError
        If x is not a matrix of counts with at least one cell, or if the size factors do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x = rng.poisson(5 * rng.gamma(2, 1 / 2, (4000, 1)))
    >>> result = fit(x)
    >>> result.mean.round(1), result.theta.round(1)
    (array([5.1]), array([2.]))
    """
    columns = by_gene(x, size_factors)
    n_genes = len(columns.indptr) - 1
    result = NBFit(np.zeros(n_genes), np.zeros(n_genes), np.zeros(n_genes))
    _fit(*columns, *result)
    return result
