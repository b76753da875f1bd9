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

from .._jit import fused, reduction
from ..softmax import (
    BLOCK,
    SoftmaxHead,
    aligned_rows,
    check_rows,
    exponentials,
    float32_array,
    head_arrays,
    logits_gradient,
    no_gradient,
    scaled,
    weight_array,
)
from ..special import exp32, log1p_terms32
from .positive import evaluate_positive, positive_buffers, scatter
from .rising import add_small, add_tabled, set_aside, survey, tabulate

if TYPE_CHECKING:
    from ..sparse import CSRRows

_MAX_LOG_THETA = np.float32(40)  # beyond, the distribution is Poisson to float32
_MAX_RATIO = np.float32(1e37)


@fused
def theta_row(log_theta, theta, inverse):
    """Write θ and 1 / θ of one row; 0 behind it."""
    theta[:], inverse[:] = 0, 0
    for g in range(log_theta.size):
        t = _MAX_LOG_THETA if log_theta[g] > _MAX_LOG_THETA else log_theta[g]
        value = exp32(t) + np.float32(0) * log_theta[g]  # infinity must not pass unnoticed
        theta[g], inverse[g] = value, np.float32(1) / value


@fused
def zero_entry(mu, theta, inverse):
    """-log p(0) = θ log(1 + r), its derivatives in η and t, log(1 + r) and r / (1 + r)."""
    r = mu * inverse
    r = _MAX_RATIO if r > _MAX_RATIO else r
    log1p_r, _, q, excess = log1p_terms32(r)
    return theta * log1p_r, theta * q, theta * excess, log1p_r, q


@reduction
def _zero_block(exponential, scale, theta, inverse, weight, slope, theta_slope, log1p_r, q):
    value_sum, slope_sum = np.float32(0), np.float32(0)
    for g in range(exponential.size):
        value, s, t, log1p_r[g], q[g] = zero_entry(exponential[g] * scale, theta[g], inverse[g])
        slope[g] = s
        theta_slope[g] += weight * t
        value_sum += value
        slope_sum += s
    return value_sum, slope_sum


@fused
def _zero_terms(exponential, scale, theta, inverse, weight, slope, theta_slope, log1p_r, q):
    """Take all genes as zeros; return -log p and its slope in η, summed."""
    value, slope_sum = 0.0, 0.0
    for start in range(0, exponential.size, BLOCK):
        b = slice(start, start + BLOCK)
        v, s = _zero_block(
            exponential[b], scale, theta[b], inverse[b], weight, slope[b], theta_slope[b], log1p_r[b], q[b]
        )
        value += v
        slope_sum += s
    return value, slope_sum


@fused
def by_theta(theta_rows, n_theta):
    """Order cells by their row of θ, so that each row is computed once; return it and where each row's cells end."""
    ends = np.zeros(n_theta + 1, np.int64)
    for s in theta_rows:
        ends[s + 1] += 1
    for s in range(n_theta):
        ends[s + 1] += ends[s]
    order = np.empty(theta_rows.size, np.int64)
    for i in range(theta_rows.size):
        order[ends[theta_rows[i]]] = i
        ends[theta_rows[i]] += 1
    return order, ends


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
    scratch, table = aligned_rows(7, n_genes), aligned_rows(4, n_genes)
    exponential, theta, inverse, slope, theta_slope = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
    log1p_r, q = scratch[5], scratch[6]
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
            shift, library = np.float64(log_library[i]) - log_total, math.exp(np.float64(log_library[i]))
            scale = np.float32(library / total)
            genes, x = indices[indptr[i] : indptr[i + 1]], counts[indptr[i] : indptr[i + 1]]
            n, n_small = set_aside(genes, x, top, plain, theta, at, terms[3])
            value, slope_sum = _zero_terms(exponential, scale, theta, inverse, weight, slope, theta_slope, log1p_r, q)
            v, d = add_tabled(genes, x, row, shift, weight, top, plain, theta, log1p_r, q, table, slope, theta_slope)
            value, slope_sum = value + v, slope_sum + d
            v, d = add_small(
                n_small, genes, x, row, shift, weight, theta, inverse, log1p_r, q, large, at[1], slope, theta_slope
            )
            value, slope_sum = value + v, slope_sum + d
            evaluate_positive(n, genes, x, row, exponential, scale, shift, log_theta[s], terms, large, at)
            v, d = scatter(n, genes, at[0], terms, weight, theta, slope, theta_slope)
            nll[i] = value + v + 0.0 * (shift + library)
            if gradient:
                slope_sum += d
                d_library[i] = weight * slope_sum
                logits_gradient(slope, exponential, weight, np.float32(weight * slope_sum / total), d_logits[i])
        if gradient:
            scaled(theta_slope, np.float32(1), d_theta[s])
        first = ends[s]


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
    out: SoftmaxHead | None = None,
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
    >>> head = softmax_head(rows, np.zeros((1, 2)), np.log([4.0]), np.zeros((1, 2)), [0])
    >>> head.nll.round(4), head.log_library.round(4)
    (array([3.4136], dtype=float32), array([0.3333], dtype=float32))
    """
    logits = np.asarray(logits)
    n, n_genes = check_rows(rows, logits)
    logits = float32_array(logits, (n, n_genes), "logits")
    log_library = float32_array(log_library, (n,), "log_library")
    log_theta, theta_rows = check_theta(log_theta, theta_rows, n, n_genes)
    w = weight_array(weights, n)
    shapes = ((n,), (n, n_genes), (n,), log_theta.shape, None) if gradient else ((n,), None, None, None, None)
    result = head_arrays(out, shapes)
    gradients = result[1:4] if gradient else (no_gradient(2), no_gradient(1), no_gradient(2))
    _head(*rows, logits, log_library, log_theta, theta_rows, w, gradient, result.nll, *gradients)
    return result
