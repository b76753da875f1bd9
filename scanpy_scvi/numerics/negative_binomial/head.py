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
from ..special import exp32, log1p32, log1p_excess32
from .counts import count_kind, exact_count, large_counts, small_counts

if TYPE_CHECKING:
    from ..sparse import CSRRows

_MAX_LOG_THETA = np.float32(40)  # beyond, the distribution is Poisson to float32
MAX_RATIO = np.float32(1e37)


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
        r = MAX_RATIO if r > MAX_RATIO else r
        log1p_r, scale = log1p32(r), np.float32(1) / (np.float32(1) + r)
        value[g] = theta[g] * log1p_r
        slope[g] = mu * scale
        theta_slope[g] = theta[g] * log1p_excess32(r * scale, log1p_r)


@fused
def positive_terms(genes, counts, logits, shift, library, rho, log_theta, theta, inverse, work, at, slope, theta_slope):
    """Replace the derivatives of the genes with a positive count by their own; return their -log p(x), summed."""
    small, large = work[:8], work[8:]
    n_small, n_large = 0, 0
    value = 0.0
    for j in range(genes.size):
        g, x = genes[j], counts[j]
        eta, mu = np.float64(logits[g]) + shift, library * rho[g]
        kind = count_kind(x, mu, inverse[g])
        if x == 0:
            continue
        if kind == 0:
            small[0, n_small], small[1, n_small], small[2, n_small] = x, eta, mu
            small[3, n_small], small[4, n_small], at[0, n_small] = theta[g], inverse[g], g
            n_small += 1
        elif kind == 1:
            large[0, n_large], large[1, n_large] = x, mu
            large[2, n_large], large[3, n_large], at[1, n_large] = theta[g], inverse[g], g
            n_large += 1
        else:
            v, slope[g], theta_slope[g] = exact_count(np.float64(x), eta, np.float64(log_theta[g]))
            value += v
    small_counts(n_small, small[0], small[1], small[2], small[3], small[4], small[5], small[6], small[7])
    large_counts(n_large, large[0], large[1], large[2], large[3], large[4], large[5], large[6])
    value += _scatter(n_small, at[0], small[5], small[6], small[7], slope, theta_slope)
    return value + _scatter(n_large, at[1], large[4], large[5], large[6], slope, theta_slope)


@fused
def _scatter(n, at, values, slopes, theta_slopes, slope, theta_slope):
    total = 0.0
    for j in range(n):
        slope[at[j]], theta_slope[at[j]] = slopes[j], theta_slopes[j]
        total += values[j]
    return total


@fused
def positive_buffers(n_genes):
    """Scratch space for `positive_terms`."""
    return np.empty((15, n_genes), np.float32), np.empty((2, n_genes), np.int32)


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
    d_t,
):
    n_genes = logits.shape[1]
    scratch = np.empty((6, n_genes), np.float32)
    rho, value, slope, theta_slope, theta, inverse = (
        scratch[0],
        scratch[1],
        scratch[2],
        scratch[3],
        scratch[4],
        scratch[5],
    )
    work, at = positive_buffers(n_genes)
    current = -1
    for i in range(logits.shape[0]):
        s = theta_rows[i]
        if s != current:
            theta_row(log_theta[s], theta, inverse)
            current = s
        shift = np.float64(log_library[i]) - softmax_row(logits[i], rho)
        library = np.float32(math.exp(np.float64(log_library[i])))
        _zero_terms(rho, library, theta, inverse, value, slope, theta_slope)
        genes, x = indices[indptr[i] : indptr[i + 1]], counts[indptr[i] : indptr[i + 1]]
        for j in range(genes.size):
            if x[j] != 0:
                value[genes[j]] = 0
        nll[i] = (
            total(value)
            + positive_terms(
                genes, x, logits[i], shift, library, rho, log_theta[s], theta, inverse, work, at, slope, theta_slope
            )
            + 0.0 * (shift + library)
        )
        if gradient:
            slope_sum = total(slope)
            d_library[i] = weights[i] * slope_sum
            logits_gradient(slope, rho, slope_sum, weights[i], d_logits[i])
            add_scaled(theta_slope, weights[i], d_t[s])


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
