"""Zero-inflated negative-binomial likelihood of softmax proportions: value and gradients in one pass over a minibatch.

With h the zero-inflation logit, π = σ(h), c = log NB(0) = -θ log(1 + μ / θ) and w = σ(h - c), the share of an observed
zero that the inflation explains,

    x = 0:  -log p = log(1 + e^h) - log(e^h + e^c),    ∂/∂c = w - 1,      ∂/∂h = σ(h) - w
    x > 0:  -log p = log(1 + e^h) - log NB(x),         ∂/∂h = σ(h)

Derivatives in η = log μ and t = log θ follow from those of c and NB (see `negative_binomial`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .._jit import fused
from ..negative_binomial.head import MAX_RATIO, check_theta, positive_buffers, positive_terms, theta_row
from ..softmax import (
    SoftmaxHead,
    add_scaled,
    check_rows,
    float32_array,
    logits_gradient,
    scaled,
    softmax_row,
    total,
    weight_array,
)
from ..special import exp32, log1p32, log1p_excess32

if TYPE_CHECKING:
    from ..sparse import CSRRows


@fused
def _zero_terms(rho, library, theta, inverse, zero_logits, value, slope, theta_slope, zero_slope, softplus_h, pi):
    zero, one = np.float32(0), np.float32(1)
    for g in range(rho.size):
        h = zero_logits[g]
        mu = library * rho[g]
        r = mu * inverse[g]
        r = MAX_RATIO if r > MAX_RATIO else r
        log1p_r, scale = log1p32(r), one / (one + r)
        c = -theta[g] * log1p_r
        gap = h - c
        tail_h, tail_gap = exp32(-abs(h)), exp32(-abs(gap))
        positive, larger = h if h > zero else zero, h if gap > zero else c
        log1p_h = log1p32(tail_h) + zero * h  # infinity must not pass unnoticed
        softplus_h[g] = positive + log1p_h
        value[g] = (positive - larger) + (log1p_h - log1p32(tail_gap))
        pi[g] = (one if h > zero else tail_h) / (one + tail_h)
        small = tail_gap / (one + tail_gap)
        w, not_w = (one - small, small) if gap > zero else (small, one - small)
        slope[g] = not_w * (mu * scale)
        theta_slope[g] = not_w * (theta[g] * log1p_excess32(r * scale, log1p_r))
        zero_slope[g] = pi[g] - w


@fused
def _head(
    indptr,
    indices,
    counts,
    logits,
    log_library,
    log_theta,
    theta_rows,
    zero_logits,
    weights,
    gradient,
    nll,
    d_logits,
    d_library,
    d_theta,
    d_zero,
):
    n_genes = logits.shape[1]
    scratch = np.empty((9, n_genes), np.float32)
    rho, value, slope, theta_slope, theta, inverse = (
        scratch[0],
        scratch[1],
        scratch[2],
        scratch[3],
        scratch[4],
        scratch[5],
    )
    zero_slope, softplus_h, pi = scratch[6], scratch[7], scratch[8]
    work, at = positive_buffers(n_genes)
    current = -1
    for i in range(logits.shape[0]):
        s = theta_rows[i]
        if s != current:
            theta_row(log_theta[s], theta, inverse)
            current = s
        shift = np.float64(log_library[i]) - softmax_row(logits[i], rho)
        library = np.float32(math.exp(np.float64(log_library[i])))
        _zero_terms(rho, library, theta, inverse, zero_logits[i], value, slope, theta_slope, zero_slope, softplus_h, pi)
        genes, x = indices[indptr[i] : indptr[i + 1]], counts[indptr[i] : indptr[i + 1]]
        for j in range(genes.size):
            if x[j] != 0:
                value[genes[j]], zero_slope[genes[j]] = softplus_h[genes[j]], pi[genes[j]]
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
            add_scaled(theta_slope, weights[i], d_theta[s])
            scaled(zero_slope, weights[i], d_zero[i])


def softmax_head(
    rows: CSRRows,
    logits: np.ndarray,
    log_library: np.ndarray,
    log_theta: np.ndarray,
    theta_rows: np.ndarray,
    zero_logits: np.ndarray,
    *,
    gradient: bool = True,
    weights: np.ndarray | None = None,
) -> SoftmaxHead:
    """Zero-inflated NB negative log-likelihood of counts with NB mean μ = exp(log library) softmax(logits).

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
    zero_logits
        Logit of the probability of an inflated zero, float32, n x genes.
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
    >>> head = softmax_head(rows, np.zeros((1, 2)), np.log([4.0]), np.zeros((1, 2)), [0], np.full((1, 2), -50.0))
    >>> head.nll.round(4)  # hardly any inflation: the negative binomial
    array([3.4136], dtype=float32)
    """
    logits = np.asarray(logits)
    n, n_genes = check_rows(rows, logits)
    logits = float32_array(logits, (n, n_genes), "logits")
    log_library = float32_array(log_library, (n,), "log_library")
    log_theta, theta_rows = check_theta(log_theta, theta_rows, n, n_genes)
    zero_logits = float32_array(zero_logits, (n, n_genes), "zero_logits")
    w = weight_array(weights, n)
    nll = np.empty(n, np.float32)
    d_logits = np.empty((n, n_genes) if gradient else (0, 0), np.float32)
    d_library = np.empty(n if gradient else 0, np.float32)
    d_theta = np.zeros(log_theta.shape if gradient else (0, 0), np.float32)
    d_zero = np.empty_like(d_logits)
    inputs = (*rows, logits, log_library, log_theta, theta_rows, zero_logits, w)
    _head(*inputs, gradient, nll, d_logits, d_library, d_theta, d_zero)
    return SoftmaxHead(nll, d_logits, d_library, d_theta, d_zero) if gradient else SoftmaxHead(nll)
