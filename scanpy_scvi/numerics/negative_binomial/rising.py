"""What a positive count adds to the negative-binomial terms of a zero, and tables of the part that θ alone decides.

With r = μ / θ, q = r / (1 + r) and rising(x, θ) = Γ(x + θ) / Γ(θ), a count x adds to -log p(0) and to its derivatives
in η = log μ and t = log θ

    x [log(1 + r) - η] - c,    x q - x,    a - x q,
    c = log [rising(x, θ) / (θ^x x!)] = Σ_{k<x} log [(1 + k/θ) / (k + 1)],    a = -∂c/∂t = Σ_{k<x} k / (θ + k)

The zero of every gene is computed anyway, and with it log(1 + r) and q. Tables of c and a, filled once per row of θ,
leave a small count without logarithms and divisions of its own.
"""

from __future__ import annotations

import numpy as np

from .._jit import fused, reduction
from ..softmax import aligned_rows, whole_vectors
from ..special import log32

MIN_THETA = np.float32(1e-3)  # from here on the tables serve
SMALL = 7  # up to here a product of factors is cheap
_ENTRIES = 25  # to fill this many entries of a table takes as long as to compute one count without it
_RECIPROCAL = np.array([1 / (k + 1) for k in range(SMALL + 1)], np.float32)
_ONE, _NONE = np.float32(1), np.int32(0)


@reduction
def _count_sizes(counts):
    """How many counts are at least 2, 4, 8, 16, 32 and 64, and how many are no integers below 2^24."""
    n2, n4, n8, n16, n32, n64, odd = _NONE, _NONE, _NONE, _NONE, _NONE, _NONE, _NONE
    for j in range(counts.size):
        x = counts[j]
        y = x if x < np.float32(2**24) else np.float32(0.5)
        n2 += np.int32(x >= np.float32(2))
        n4 += np.int32(x >= np.float32(4))
        n8 += np.int32(x >= np.float32(8))
        n16 += np.int32(x >= np.float32(16))
        n32 += np.int32(x >= np.float32(32))
        n64 += np.int32(x >= np.float32(64))
        odd += np.int32(y != np.float32(np.int32(y)))
    return n2, n4, n8, n16, n32, n64, odd


@fused
def survey(indptr, counts, cells, theta):
    """Choose the largest count to tabulate for these cells: 1, 3, 7, 15, 31 or 63, as far as tables pay.

    Also return whether all counts are integers and all θ large enough for the tables.
    """
    sizes = np.zeros(7, np.int64)
    for i in cells:
        n2, n4, n8, n16, n32, n64, odd = _count_sizes(counts[indptr[i] : indptr[i + 1]])
        sizes[0] += n2
        sizes[1] += n4
        sizes[2] += n8
        sizes[3] += n16
        sizes[4] += n32
        sizes[5] += n64
        sizes[6] += odd
    plain = sizes[6] == 0
    for g in range(theta.size):
        plain &= theta[g] >= MIN_THETA
    top = 1
    for k in range(5):
        if _ENTRIES * (sizes[k] - sizes[k + 1]) < theta.size * (top + 1):
            break
        top = 2 * top + 1
    return top, plain


@fused
def _fill(k, inverse, c, a, next_c, next_a):
    scale = np.float32(1 / (k + 1))
    for g in range(inverse.size):
        step = np.float32(k) * inverse[g]
        factor = _ONE + step
        next_c[g] = c[g] + log32(factor * scale)
        next_a[g] = a[g] + step / factor


@fused
def tabulate(top, inverse, table):
    """Rows 2x and 2x + 1 of the result: c and a of the count x, for x <= top; `table` if it has the room, or new."""
    if table.shape[0] < 2 * top + 2:
        table = aligned_rows(2 * top + 2, inverse.size)
    for x in range(1, top):
        _fill(x, inverse, table[2 * x], table[2 * x + 1], table[2 * x + 2], table[2 * x + 3])
    return table


@fused
def _list_between(counts, low, high, at):
    """List the counts above `low` and up to `high`."""
    n, bottom, top = np.uintp(0), np.float32(low), np.float32(high)
    for j in range(counts.size):
        at[n] = j
        n += np.uintp((counts[j] > bottom) & (counts[j] <= top))
    return n


@fused
def _list_odd(genes, counts, top, theta, at):
    """List what is above `top` or not whole, or has a small θ."""
    n, largest = np.uintp(0), np.float32(top)
    for j in range(genes.size):
        x = counts[j] if counts[j] <= largest else np.float32(0.5)
        odd = (x != np.float32(np.int32(x))) | ~(theta[np.uintp(genes[j])] >= MIN_THETA)
        at[n] = j
        n += np.uintp(odd & (counts[j] != 0))
    return n


@fused
def set_aside(genes, counts, top, plain, theta, at, kept):
    """List the counts not served here, and those of 2 to 7 above the tables; return the two numbers.

    The former's θ are set to 0, so that all terms of their zeros are 0.
    """
    n, n_small, largest = np.uintp(0), np.uintp(0), np.float32(max(top, SMALL))
    if plain:
        for k in range(_list_between(counts, top, np.inf, at[1])):
            j = at[1, k]
            at[0, n], at[1, n_small] = j, j
            n += np.uintp(counts[j] > largest)
            n_small += np.uintp(counts[j] <= largest)
    else:
        n = _list_odd(genes, counts, largest, theta, at[0])
        n_small = _list_between(counts, top, largest, at[1])
    for j in range(n):
        g = np.uintp(genes[at[0, j]])
        kept[j] = theta[g]
        theta[g] = 0
    return np.int64(n), np.int64(n_small)


@fused
def add_tabled(genes, counts, row, shift, weight, top, plain, theta, log1p_r, q, table, slope, theta_slope):
    """Add what the tabled counts of a cell add; return the sums of -log p and of its slope in η."""
    high, largest = np.float32(shift), np.float32(top)
    low = np.float32(shift - np.float64(high))
    value, slope_sum = 0.0, 0.0
    for j in range(genes.size):
        g = np.uintp(genes[j])
        tabled = (counts[j] >= 0) and (counts[j] <= largest) and (plain or theta[g] > 0)
        x = counts[j] if tabled else np.float32(0)
        level = np.uintp(np.int32(x)) << np.uintp(1)
        by_q = x * q[g]
        value += x * (log1p_r[g] - ((row[g] + high) + low)) - table[level, g]
        slope_sum += by_q - x
        slope[g] += by_q - x
        theta_slope[g] += weight * (table[level + np.uintp(1), g] - by_q)
    return value, slope_sum


@fused
def _small_parts(n, x, inverse, c, a):
    """Terms c and a of n integers from 1 to 7."""
    for j in range(n):
        product, rise = _ONE, np.float32(0)  # rise / product is the sum over k
        for k in range(1, SMALL):
            step = np.float32(k) * inverse[j]
            factor, gain = (_ONE + step) * _RECIPROCAL[k], step * _RECIPROCAL[k]
            inside = np.float32(k) < x[j]
            rise = rise * factor + gain * product if inside else rise
            product = product * factor if inside else product
        c[j], a[j] = log32(product), rise / product


@fused
def add_small(n, genes, counts, row, shift, weight, theta, inverse, log1p_r, q, work, at, slope, theta_slope):
    """Add what the n listed counts of 2 to 7 add; return the sums of -log p and of its slope in η."""
    value, slope_sum = 0.0, 0.0
    for j in range(n):
        work[0, j], work[1, j] = counts[at[j]], inverse[np.uintp(genes[at[j]])]
    _small_parts(whole_vectors(n, work.shape[1]), work[0], work[1], work[2], work[3])
    for j in range(n):
        g = np.uintp(genes[at[j]])
        if theta[g] > 0:
            x = work[0, j]
            by_q = x * q[g]
            value += np.float64(x * log1p_r[g] - work[2, j]) - np.float64(x) * (np.float64(row[g]) + shift)
            slope_sum += by_q - x
            slope[g] += by_q - x
            theta_slope[g] += weight * (work[3, j] - by_q)
    return value, slope_sum
