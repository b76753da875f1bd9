"""The positive counts of a cell: gathered by kind, evaluated in vectors, and put back among its genes.

A gene with a count has its θ set to 0 while the cell's genes are taken as zeros, because then every term of that gene
is 0; afterwards θ comes back.
"""

from __future__ import annotations

import numpy as np

from .._jit import fused, reduction
from ..softmax import aligned_rows
from .counts import count_kind, exact_count, large_counts, one_or_two, small_counts

_X, _EXPONENTIAL, _THETA, _LOGIT, _VALUE, _SLOPE, _THETA_SLOPE = range(7)
_MIN_THETA = np.float32(1e-3)  # from here on `one_or_two` and `small_counts` serve


@fused
def positive_buffers(n_genes):
    """Scratch space: for counts of 1 and 2 and for the rest, seven values each and the gene."""
    entries, work = aligned_rows(14, n_genes + 1), aligned_rows(15, n_genes)
    entries[:], work[:] = 1, 1
    return entries[:7], entries[7:], work, np.empty((4, n_genes), np.int32)


@fused
def gather(genes, counts, logits, exponential, theta, tiny, rest, at):
    """Collect the positive counts of a cell, ones and twos apart, and set θ to 0 there; return the two numbers."""
    n_tiny, n_rest = np.uintp(0), np.uintp(0)
    for j in range(genes.size):
        g, x = np.uintp(genes[j]), counts[j]
        if x == 0:
            continue
        e, t, logit = exponential[g], theta[g], logits[g]
        theta[g] = 0
        if ((x == np.float32(1)) | (x == np.float32(2))) & (t >= _MIN_THETA):
            tiny[_X, n_tiny], tiny[_EXPONENTIAL, n_tiny], tiny[_THETA, n_tiny], tiny[_LOGIT, n_tiny] = x, e, t, logit
            at[0, n_tiny] = genes[j]
            n_tiny += np.uintp(1)
        else:
            rest[_X, n_rest], rest[_EXPONENTIAL, n_rest], rest[_THETA, n_rest], rest[_LOGIT, n_rest] = x, e, t, logit
            at[1, n_rest] = genes[j]
            n_rest += np.uintp(1)
    return np.int64(n_tiny), np.int64(n_rest)


@fused
def _whole(n, size):
    """Round n up to whole vectors: what lies behind the entries is computed too, and ignored."""
    return min((n + 15) // 16 * 16, size)


@fused
def evaluate_positive(n_tiny, n_rest, scale, shift, log_theta, tiny, rest, work, at):
    """Compute the terms of what `gather` collected."""
    high = np.float32(shift)
    low = np.float32(shift - np.float64(high))
    x, e, theta, logit = tiny[_X], tiny[_EXPONENTIAL], tiny[_THETA], tiny[_LOGIT]
    n = _whole(n_tiny, x.size)
    one_or_two(n, x, e, scale, theta, logit, high, low, tiny[_VALUE], tiny[_SLOPE], tiny[_THETA_SLOPE])
    small, large = work[:8], work[8:]
    n_small, n_large = 0, 0
    for j in range(n_rest):
        x, mu, theta = rest[_X, j], rest[_EXPONENTIAL, j] * scale, rest[_THETA, j]
        inverse, eta = np.float32(1) / theta, np.float64(rest[_LOGIT, j]) + shift
        kind = count_kind(x, mu, inverse)
        if kind == 0:
            small[0, n_small], small[1, n_small], small[2, n_small] = x, eta, mu
            small[3, n_small], small[4, n_small], at[2, n_small] = theta, inverse, j
            n_small += 1
        elif kind == 1:
            large[0, n_large], large[1, n_large] = x, mu
            large[2, n_large], large[3, n_large], at[3, n_large] = theta, inverse, j
            n_large += 1
        else:
            t = np.float64(log_theta[at[1, j]])
            rest[_VALUE, j], rest[_SLOPE, j], rest[_THETA_SLOPE, j] = exact_count(np.float64(x), eta, t)
    n = _whole(n_small, work.shape[1])
    small_counts(n, small[0], small[1], small[2], small[3], small[4], small[5], small[6], small[7])
    n = _whole(n_large, work.shape[1])
    large_counts(n, large[0], large[1], large[2], large[3], large[4], large[5], large[6])
    _put(n_small, at[2], small[5:8], rest)
    _put(n_large, at[3], large[4:7], rest)


@fused
def _put(n, at, terms, rest):
    for j in range(n):
        rest[_VALUE, at[j]], rest[_SLOPE, at[j]], rest[_THETA_SLOPE, at[j]] = terms[0, j], terms[1, j], terms[2, j]


@reduction
def _sums(n, value, slope):
    value_sum, slope_sum = 0.0, 0.0
    for j in range(n):
        value_sum += np.float64(value[j])
        slope_sum += np.float64(slope[j])
    return value_sum, slope_sum


@fused
def scatter(n, at, entries, weight, theta, slope, theta_slope):
    """Put terms back among the genes, and θ too; return -log p(x) and its slope in η, summed."""
    for j in range(n):
        g = np.uintp(at[j])
        theta[g] = entries[_THETA, j]
        slope[g] = entries[_SLOPE, j]
        theta_slope[g] += weight * entries[_THETA_SLOPE, j]
    return _sums(n, entries[_VALUE], entries[_SLOPE])
