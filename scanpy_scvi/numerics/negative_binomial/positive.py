"""The counts of a cell from 8 up, or not whole, that no table serves: evaluated in vectors, put among its genes."""

from __future__ import annotations

import numpy as np

from .._jit import fused, reduction
from ..softmax import aligned_rows, whole_vectors
from .counts import exact_count, is_regular, large_counts

_VALUE, _SLOPE, _THETA_SLOPE = range(3)


@fused
def positive_buffers(n_genes):
    """Scratch space: the results and θ of each such count, inputs and results of the large ones, and their places."""
    terms, large = aligned_rows(4, n_genes + 1), aligned_rows(7, n_genes)
    large[:] = 1
    return terms, large, np.empty((2, n_genes + 1), np.int32)


@fused
def evaluate_positive(n, genes, counts, row, exponential, scale, shift, log_theta, terms, large, at):
    """Compute the terms of the n counts listed in at[0], whose θ are in terms[3]."""
    m = 0
    for j in range(n):
        g, x, theta = np.uintp(genes[at[0, j]]), counts[at[0, j]], terms[3, j]
        mu, inverse = exponential[g] * scale, np.float32(1) / theta
        if is_regular(x, mu, inverse):
            large[0, m], large[1, m], large[2, m], large[3, m], at[1, m] = x, mu, theta, inverse, j
            m += 1
        else:
            eta, t = np.float64(row[g]) + shift, np.float64(log_theta[g])
            terms[_VALUE, j], terms[_SLOPE, j], terms[_THETA_SLOPE, j] = exact_count(np.float64(x), eta, t)
    size = whole_vectors(m, large.shape[1])
    large_counts(size, large[0], large[1], large[2], large[3], large[4], large[5], large[6])
    for k in range(m):
        j = at[1, k]
        terms[_VALUE, j], terms[_SLOPE, j], terms[_THETA_SLOPE, j] = large[4, k], large[5, k], large[6, k]


@reduction
def _sums(n, value, slope):
    value_sum, slope_sum = 0.0, 0.0
    for j in range(n):
        value_sum += np.float64(value[j])
        slope_sum += np.float64(slope[j])
    return value_sum, slope_sum


@fused
def scatter(n, genes, at, terms, weight, theta, slope, theta_slope):
    """Put terms among the genes, and θ back too; return -log p(x) and its slope in η, summed."""
    for j in range(n):
        g = np.uintp(genes[at[j]])
        theta[g] = terms[3, j]
        slope[g] = terms[_SLOPE, j]
        theta_slope[g] += weight * terms[_THETA_SLOPE, j]
    return _sums(n, terms[_VALUE], terms[_SLOPE])
