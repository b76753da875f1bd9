"""Negative-binomial likelihood of softmax proportions: value and gradients in one pass over a minibatch.

With η = log μ (see `softmax`), t = log θ, r = μ / θ and rising(x, θ) = Γ(x + θ) / Γ(θ),

    -log p(x) = θ log(1 + r) + x log(1 + 1/r) - log rising(x, θ) + log x!
    ∂/∂η = (μ - x) / (1 + r)
    ∂/∂t = θ [ log(1 + r) - digamma_rising(x, θ) - (μ - x) / (θ + μ) ]

Every gene is first taken as x = 0, in a vectorised loop: θ log(1 + r), μ / (1 + r), θ [log(1 + r) - r / (1 + r)].
The stored counts of the CSR row then replace their own terms.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .._jit import fused
from ..softmax import (
    SoftmaxHead,
    add_scaled,
    check_rows,
    float32_array,
    logits_gradient,
    softmax_row,
    total,
    weight_array,
)
from ..special import (
    digamma_rising_excess,
    exp32,
    log1p32,
    log1p_excess32,
    log1p_minus,
    log32,
    log_factorial,
    log_rising,
    softplus,
)

if TYPE_CHECKING:
    from ..sparse import CSRRows

_MAX_LOG_THETA = np.float32(40)  # beyond, the distribution is Poisson to float32
_MAX_RATIO = np.float32(1e37)
_SMALL_COUNT, _SMALL_COUNT_MAX_INVERSE = 8, np.float32(1e4)  # where the product below stays within float32


@fused
def theta_row(log_theta, theta, inverse):
    """Write θ and 1 / θ of one row."""
    for g in range(log_theta.size):
        t = _MAX_LOG_THETA if log_theta[g] > _MAX_LOG_THETA else log_theta[g]
        theta[g] = exp32(t) + np.float32(0) * log_theta[g]  # infinity must not pass unnoticed
        inverse[g] = exp32(-t)


@fused
def _zero_terms(rho, library, theta, inverse, value, slope, theta_slope):
    for g in range(rho.size):
        mu = library * rho[g]
        r = mu * inverse[g]
        r = _MAX_RATIO if r > _MAX_RATIO else r
        value[g] = theta[g] * log1p32(r)
        slope[g] = mu / (np.float32(1) + r)
        theta_slope[g] = theta[g] * log1p_excess32(r)


@fused
def count_terms_exact(x, eta, t):
    """Float64 -log p(x) and its derivatives in η = log μ and t = log θ, for any x >= 0."""
    theta, d = math.exp(t), eta - t
    r, u = math.exp(d), x / theta
    value = theta * softplus(d) + x * softplus(-d) - log_rising(x, theta) + log_factorial(x)
    slope = (theta * r - x) / (1.0 + r)
    # log(1 + r) - log(1 + u) - (r - u) / (1 + r) = -[log(1 + w) - w] with w = (u - r) / (1 + r)
    theta_slope = -theta * (log1p_minus((u - r) / (1.0 + r)) + digamma_rising_excess(x, theta))
    return value, slope, theta_slope


@fused
def count_terms(x, eta, t, mu, theta, inverse):
    """-log p(x) and its derivatives in η and t for x > 0; small counts in float32, as products and short sums."""
    n = int(min(x, np.float32(100)))
    if n > _SMALL_COUNT or n != x or inverse > _SMALL_COUNT_MAX_INVERSE:
        return count_terms_exact(np.float64(x), eta, np.float64(t))
    one = np.float32(1)
    r = mu * inverse
    r = _MAX_RATIO if r > _MAX_RATIO else r
    log1p_r = log1p32(r)
    product, theta_slope = one, -r
    for k in range(1, n):
        step = np.float32(k) * inverse
        product *= one + step
        theta_slope += (step - r) / (one + step)
    value = (theta + x) * log1p_r - x * eta + log_factorial(x)
    if n > 1:
        value -= log32(product)
    return value, (mu - x) / (one + r), theta * log1p_excess32(r) + theta_slope / (one + r)


@fused
def _head(
    indptr,
    indices,
    counts,
    logits,
    log_library,
    log_theta,
    theta_rows,
    weights,
    gradient,
    nll,
    d_logits,
    d_library,
    d_theta,
):
    n_genes = logits.shape[1]
    rho, value, slope = np.empty(n_genes, np.float32), np.empty(n_genes, np.float32), np.empty(n_genes, np.float32)
    theta_slope, theta, inverse = np.empty_like(rho), np.empty_like(rho), np.empty_like(rho)
    current = -1
    for i in range(logits.shape[0]):
        s = theta_rows[i]
        if s != current:
            theta_row(log_theta[s], theta, inverse)
            current = s
        shift = np.float64(log_library[i]) - softmax_row(logits[i], rho)
        library = np.float32(math.exp(np.float64(log_library[i])))
        _zero_terms(rho, library, theta, inverse, value, slope, theta_slope)
        nll_i = 0.0 * shift + 0.0 * library
        for j in range(indptr[i], indptr[i + 1]):
            x, g = counts[j], indices[j]
            if x != 0:
                eta = np.float64(logits[i, g]) + shift
                v, slope[g], theta_slope[g] = count_terms(
                    x, eta, log_theta[s, g], library * rho[g], theta[g], inverse[g]
                )
                nll_i += v
                value[g] = 0
        nll[i] = nll_i + total(value)
        if gradient:
            slope_sum = total(slope)
            d_library[i] = weights[i] * slope_sum
            logits_gradient(slope, rho, slope_sum, weights[i], d_logits[i])
            add_scaled(theta_slope, weights[i], d_theta[s])


def check_theta(
    log_theta: np.ndarray, theta_rows: np.ndarray, n_cells: int, n_genes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return log θ and its row per cell in the kernels' types, or raise ValueError."""
    log_theta = np.asarray(log_theta)
    log_theta = float32_array(log_theta, (len(log_theta), n_genes), "log_theta")
    theta_rows = np.require(theta_rows, np.int64, ["C", "A", "W"])
    if theta_rows.shape != (n_cells,) or (n_cells and not 0 <= theta_rows.min() <= theta_rows.max() < len(log_theta)):
        msg = (
            f"`theta_rows` must give each of the {n_cells} cells a row of `log_theta`, from 0 to {len(log_theta) - 1}."
        )
        raise ValueError(msg)
    return log_theta, theta_rows


def softmax_head(
    rows: CSRRows,
    logits: np.ndarray,
    log_library: np.ndarray,
    log_theta: np.ndarray,
    theta_rows: np.ndarray,
    *,
    gradient: bool = True,
    weights: np.ndarray | None = None,
) -> SoftmaxHead:
    """Negative-binomial negative log-likelihood of counts with mean μ = exp(log library) softmax(logits).

    Parameters
    ----------
    rows
        Counts of a minibatch (n cells), from :func:`scanpy_scvi.numerics.sparse.take_rows`.
    logits
        Unnormalised log proportions, float32, n x genes.
    log_library
        Log of each cell's expected total, float32, n.
    log_theta
        Log of the inverse dispersion θ, float32, rows x genes: one row, one per batch or label, or one per cell.
    theta_rows
        The row of `log_theta` that belongs to each cell, n.
    gradient
        Compute the gradients too.
    weights
        Factor on each cell's contribution to the gradients (the incoming gradient of its nll), n.

    Returns
    -------
    The negative log-likelihood per cell and its gradients.

    Raises
    ------
    ValueError
        If shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from scanpy_scvi.numerics.sparse import take_rows
    >>> rows = take_rows(np.array([0, 1]), np.array([0]), np.array([3]), [0])
    >>> head = softmax_head(rows, np.zeros((1, 2)), np.log([4.0]), np.zeros((1, 2)), [0])
    >>> head.nll.round(4), head.log_library.round(4)
    (array([3.4136], dtype=float32), array([0.3333], dtype=float32))
    """
    logits = np.asarray(logits)
    n, n_genes = check_rows(rows, logits)
    logits = float32_array(logits, (n, n_genes), "logits")
    log_library = float32_array(log_library, (n,), "log_library")
    log_theta, theta_rows = check_theta(log_theta, theta_rows, n, n_genes)
    nll = np.empty(n, np.float32)
    d_logits = np.empty((n, n_genes) if gradient else (0, 0), np.float32)
    d_library = np.empty(n if gradient else 0, np.float32)
    d_theta = np.zeros(log_theta.shape if gradient else (0, 0), np.float32)
    w = weight_array(weights, n)
    _head(*rows, logits, log_library, log_theta, theta_rows, w, gradient, nll, d_logits, d_library, d_theta)
    return SoftmaxHead(nll, d_logits, d_library, d_theta) if gradient else SoftmaxHead(nll)
