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

from .._jit import fused, reduction
from ..negative_binomial.head import by_theta, check_theta, theta_row, zero_entry
from ..negative_binomial.positive import evaluate_positive, positive_buffers, scatter
from ..negative_binomial.rising import add_small, add_tabled, set_aside, survey, tabulate
from ..softmax import (
    BLOCK,
    SoftmaxHead,
    aligned_rows,
    check_rows,
    copy_row,
    exponentials,
    float32_array,
    head_arrays,
    logits_gradient,
    no_gradient,
    scaled,
    weight_array,
)
from ..special import exp_below32, log1p32

if TYPE_CHECKING:
    from ..sparse import CSRRows

_ZERO, _ONE = np.float32(0), np.float32(1)
_NEVER = np.float32(-1e30)  # in place of minus infinity


@fused
def _inflate(fall, gap, h):
    """-log p(0), its derivative in h and 1 - w, from exponentials of negative numbers alone; fall = -c, gap = h - c."""
    tail_h, tail_gap = exp_below32(-abs(h)), exp_below32(-abs(gap))
    one_h, one_gap = _ONE + tail_h, _ONE + tail_gap
    both = _ONE / (one_h * one_gap)
    by_h, by_gap = one_gap * both, one_h * both
    larger = h if gap > _ZERO else -fall
    positive = h if h > _ZERO else _ZERO
    value = (positive - larger) + log1p32((tail_h - tail_gap) * by_gap)
    pi = by_h if h > _ZERO else tail_h * by_h
    small = tail_gap * by_gap
    w, not_w = (by_gap, small) if gap > _ZERO else (small, by_gap)
    return value, pi - w, not_w


@fused
def _plain_zeros(exponential, scale, theta, inverse, h, fall, gap, slope, part, log1p_r, q):
    """Terms of the negative binomial: on its own, the loop's constants stay in registers."""
    for g in range(exponential.size):
        fall[g], slope[g], part[g], log1p_r[g], q[g] = zero_entry(exponential[g] * scale, theta[g], inverse[g])
        gap[g] = h[g] + fall[g]


@fused
def _without_zeros(genes, counts, gap):
    """Where there is a count, let w be 0 in `_inflate`, which then is log(1 + e^h) - c, with σ(h) as derivative."""
    for j in range(genes.size):
        g = np.uintp(genes[j])
        gap[g] = gap[g] if counts[j] == 0 else _NEVER


@reduction
def _zero_block(fall, gap, part, zero, weight, slope, theta_slope):
    value_sum, slope_sum = np.float32(0), np.float32(0)
    for g in range(fall.size):
        value, z, not_w = _inflate(fall[g], gap[g], zero[g])
        s = not_w * slope[g]
        slope[g] = s
        theta_slope[g] += weight * (not_w * part[g])
        zero[g] = z
        value_sum += value
        slope_sum += s
    return value_sum, slope_sum


@fused
def _zero_terms(fall, gap, part, zero, weight, slope, theta_slope):
    """Inflate the zeros, and replace their zero-inflation logits by their slopes; return the sums over genes."""
    value, slope_sum = 0.0, 0.0
    for start in range(0, fall.size, BLOCK):
        b = slice(start, start + BLOCK)
        v, s = _zero_block(fall[b], gap[b], part[b], zero[b], weight, slope[b], theta_slope[b])
        value += v
        slope_sum += s
    return value, slope_sum


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
    scratch, table = aligned_rows(11, n_genes), aligned_rows(4, n_genes)
    exponential, theta, inverse, slope, theta_slope = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
    log1p_r, q, zero = scratch[5], scratch[6], scratch[7]
    fall, gap, theta_part = scratch[8], scratch[9], scratch[10]
    terms, large, at = positive_buffers(n_genes)
    order, ends = by_theta(theta_rows, log_theta.shape[0])
    first = 0
    for s in range(log_theta.shape[0]):
        theta_slope[:] = 0
        top, plain = 1, True
        if ends[s] > first:
            theta_row(log_theta[s], theta, inverse)
            top, plain = survey(indptr, counts, order[first : ends[s]], theta[:n_genes])
            table = tabulate(top, inverse, table)
        for k in range(first, ends[s]):
            i = order[k]
            weight, row = weights[i], logits[i]
            total, log_total = exponentials(row, exponential)
            _, defect = copy_row(zero_logits[i], zero)
            shift, library = np.float64(log_library[i]) - log_total, math.exp(np.float64(log_library[i]))
            scale = np.float32(library / total)
            genes, x = indices[indptr[i] : indptr[i + 1]], counts[indptr[i] : indptr[i + 1]]
            n, n_small = set_aside(genes, x, top, plain, theta, at, terms[3])
            _plain_zeros(exponential, scale, theta, inverse, zero, fall, gap, slope, theta_part, log1p_r, q)
            _without_zeros(genes, x, gap)
            value, slope_sum = _zero_terms(fall, gap, theta_part, zero, weight, slope, theta_slope)
            v, d = add_tabled(genes, x, row, shift, weight, top, plain, theta, log1p_r, q, table, slope, theta_slope)
            value, slope_sum = value + v, slope_sum + d
            v, d = add_small(
                n_small, genes, x, row, shift, weight, theta, inverse, log1p_r, q, large, at[1], slope, theta_slope
            )
            value, slope_sum = value + v, slope_sum + d
            evaluate_positive(n, genes, x, row, exponential, scale, shift, log_theta[s], terms, large, at)
            v, d = scatter(n, genes, at[0], terms, weight, theta, slope, theta_slope)
            value, slope_sum = value + v, slope_sum + d
            nll[i] = value + 0.0 * (shift + library) + defect
            if gradient:
                d_library[i] = weight * slope_sum
                logits_gradient(slope, exponential, weight, np.float32(weight * slope_sum / total), d_logits[i])
                scaled(zero, weight, d_zero[i])
        if gradient:
            scaled(theta_slope, np.float32(1), d_theta[s])
        first = ends[s]


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
    out: SoftmaxHead | None = None,
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
    out
        Result of an earlier call with the same shapes, whose arrays are filled anew, to save their allocation.

    Returns
    -------
    The negative log-likelihood per cell and its gradients.

    Raises
    ------
    ValueError
        If shapes do not fit, those of `out` included.

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
    wide = (n, n_genes)
    shapes = ((n,), wide, (n,), log_theta.shape, wide) if gradient else ((n,), None, None, None, None)
    result = head_arrays(out, shapes)
    gradients = result[1:] if gradient else (no_gradient(2), no_gradient(1), no_gradient(2), no_gradient(2))
    _head(*rows, logits, log_library, log_theta, theta_rows, zero_logits, w, gradient, result.nll, *gradients)
    return result
