"""The positive counts of a cell: gathered by kind, evaluated in vectors, and put back among its genes.

A gene with a count has its θ set to 0 while the cell's genes are taken as zeros, because then every term of that gene
is 0; afterwards θ comes back.
"""

from __future__ import annotations

import numpy as np

from .._jit import fused
from ..softmax import aligned_rows
from .counts import count_kind, exact_count, large_counts, one_or_two, small_counts

_X, _EXPONENTIAL, _THETA, _LOGIT, _VALUE, _SLOPE, _THETA_SLOPE = range(7)
_MIN_THETA = np.float32(1e-3)  # from here on `one_or_two` and `small_counts` serve


@fused
def positive_buffers(n_genes):
    """Scratch space: for counts of 1 and 2 and for the rest, seven values each and the gene."""
    tiny, rest, work = aligned_rows(7, n_genes), aligned_rows(7, n_genes), aligned_rows(15, n_genes)
    tiny[_X:_LOGIT], work[:] = 1, 1
    return tiny, rest, work, np.empty((4, n_genes), np.int32)


@fused
def gather(genes, counts, logits, exponential, theta, tiny, rest, at):
    """Collect the positive counts of a cell, ones and twos apart, and set θ to 0 there; return the two numbers."""
    n_tiny, n_rest = 0, 0
    for j in range(genes.size):
        g, x = np.uintp(genes[j]), counts[j]
        if x == 0:
            continue
        e, t, logit = exponential[g], theta[g], logits[g]
        theta[g] = 0
        if ((x == np.float32(1)) | (x == np.float32(2))) & (t >= _MIN_THETA):
            p = np.uintp(n_tiny)
            tiny[_X, p], tiny[_EXPONENTIAL, p], tiny[_THETA, p], tiny[_LOGIT, p], at[0, p] = x, e, t, logit, genes[j]
            n_tiny += 1
        else:
            p = np.uintp(n_rest)
            rest[_X, p], rest[_EXPONENTIAL, p], rest[_THETA, p], rest[_LOGIT, p], at[1, p] = x, e, t, logit, genes[j]
            n_rest += 1
    return n_tiny, n_rest


@fused
def evaluate_positive(n_tiny, n_rest, scale, shift, log_theta, tiny, rest, work, at):
    """Compute the terms of what `gather` collected."""
    high = np.float32(shift)
    low = np.float32(shift - np.float64(high))
    whole = min((n_tiny + 31) // 32 * 32, tiny.shape[1])  # what lies behind is computed and ignored
    one_or_two(
        whole,
        tiny[_X],
        tiny[_EXPONENTIAL],
        scale,
        tiny[_THETA],
        tiny[_LOGIT],
        high,
        low,
        tiny[_VALUE],
        tiny[_SLOPE],
        tiny[_THETA_SLOPE],
    )
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
    whole = min((n_small + 31) // 32 * 32, work.shape[1])
    small_counts(whole, small[0], small[1], small[2], small[3], small[4], small[5], small[6], small[7])
    large_counts(n_large, large[0], large[1], large[2], large[3], large[4], large[5], large[6])
    _put(n_small, at[2], small[5:8], rest)
    _put(n_large, at[3], large[4:7], rest)


@fused
def _put(n, at, terms, rest):
    for j in range(n):
        rest[_VALUE, at[j]], rest[_SLOPE, at[j]], rest[_THETA_SLOPE, at[j]] = terms[0, j], terms[1, j], terms[2, j]


@fused
def scatter(n, at, entries, weight, theta, slope, theta_slope):
    """Put terms back among the genes, and θ too; return -log p(x) and its slope in η, summed."""
    value, slope_sum = 0.0, 0.0
    for j in range(n):
        g = np.uintp(at[j])
        theta[g] = entries[_THETA, j]
        slope[g] = entries[_SLOPE, j]
        theta_slope[g] += weight * entries[_THETA_SLOPE, j]
        value += entries[_VALUE, j]
        slope_sum += entries[_SLOPE, j]
    return value, slope_sum
