"""Log2 fold changes of paired draws, summarised gene by gene in one pass over the draws.

    d_i = log2[(a_i + c) / (b_j(i) + c)],    j(i) the partner of draw i

Per gene: how many d_i are at least δ and how many below -δ (or how many a_i exceed b_j(i)), in parts of the draws;
mean, standard deviation and quantiles of d. A quantile is selected, not sorted for: a histogram says in which narrow
bin it lies, and the few values of that bin are put in order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import exact, fused, reduction
from ._memory import aligned_empty
from .special import log32
from .team import share

_BINS = 512
_TO_LOG2 = np.float32(1 / np.log(2))
_LEAST = np.float32(1e-30)  # no logarithm of zero
_SECONDS = 8e-9
"""All that is done for one draw of one gene."""


class FoldChanges(NamedTuple):
    """What the draws say of each gene; float32 and (genes,) unless said otherwise."""

    up: np.ndarray
    """Draws with d >= δ (or a > b), int64, (parts, genes)."""
    down: np.ndarray
    """Draws with d < -δ (or a <= b), int64, (parts, genes)."""
    mean: np.ndarray
    std: np.ndarray
    """Root of the mean squared distance from the mean."""
    quantiles: np.ndarray
    """(quantiles, genes)."""
    mean_a: np.ndarray
    mean_b: np.ndarray


@fused
def _changes(a, b, c, out):
    for i in range(a.size):
        out[i] = log32((a[i] + c) / (b[i] + c)) * _TO_LOG2


@reduction
def _sum(x):
    total = np.float32(0)
    for i in range(x.size):
        total += x[i]
    return total


@reduction
def _squares(x, mean):
    total = np.float32(0)
    for i in range(x.size):
        gap = x[i] - mean
        total += gap * gap
    return total


@reduction
def _count(x, delta):
    up, down = np.int32(0), np.int32(0)
    for i in range(x.size):
        up += np.int32(x[i] >= delta)
        down += np.int32(x[i] < -delta)
    return up, down


@reduction
def _count_larger(a, b):
    up = np.int32(0)
    for i in range(a.size):
        up += np.int32(a[i] > b[i])
    return up, np.int32(a.size) - up


@fused
def _range(x):
    """Smallest and largest value; NaN for both if one is NaN."""
    low, high, odd = x[0], x[0], np.float32(0)
    for i in range(x.size):
        low = x[i] if x[i] < low else low
        high = x[i] if x[i] > high else high
        odd += x[i] - x[i]  # NaN for NaN and infinity
    return low + odd, high + odd


@exact
def _bin_numbers(x, low, scale, numbers):
    for i in range(x.size):
        k = np.int32((x[i] - low) * scale)
        numbers[i] = k if k < np.int32(_BINS - 1) else np.int32(_BINS - 1)


@exact
def _order_statistics(x, ranks, numbers, ends, wanted, kept, out):
    """Write the values of these ranks, which rise; `x` stays as it is."""
    low, high = _range(x)
    if not high - low < np.float32(np.inf):  # NaN and infinity have no bin
        out[:] = np.float32(np.nan)
        return
    if high == low:
        out[:] = low
        return
    _bin_numbers(x, low, np.float32(_BINS) / (high - low), numbers)
    ends[:] = 0
    for i in range(x.size):
        ends[numbers[i]] += 1
    for k in range(1, _BINS):
        ends[k] += ends[k - 1]
    wanted[:] = 0
    k, n_before, n_kept = 0, 0, 0  # values in bins below that are not wanted, and in wanted ones
    for r in range(ranks.size):
        while ends[k] <= ranks[r]:
            k += 1
        start = ends[k - 1] if k > 0 else 0
        if wanted[k] == 0:
            wanted[k] = 1
            n_before, n_kept = start - n_kept, n_kept + ends[k] - start
        out[r] = ranks[r] - n_before  # place among the values of wanted bins; exact up to 2^24 draws
    n = 0
    for i in range(x.size):
        kept[n] = x[i]
        n += wanted[numbers[i]]
    kept[:n].sort()
    for r in range(ranks.size):
        out[r] = kept[np.int64(out[r])]


@exact
def _summarise(
    a, b, partner, first, last, c, reported, delta, larger, starts, ranks, up, down, mean, std, ordered, mean_a, mean_b
):
    n = a.shape[1]
    d, paired = np.empty(n, np.float32), np.empty(n, np.float32)
    numbers, kept = np.empty(n, np.int32), np.empty(n + 1, np.float32)
    ends, wanted = np.empty(_BINS, np.int64), np.empty(_BINS, np.int64)
    for g in range(first, last):
        for i in range(n):
            paired[i] = b[g, partner[i]]
        _changes(a[g], paired, c, d)
        for part in range(starts.size - 1):
            s = slice(starts[part], starts[part + 1])
            up[part, g], down[part, g] = _count_larger(a[g, s], paired[s]) if larger else _count(d[s], delta)
        if reported != c:
            _changes(a[g], paired, reported, d)
        mean[g] = _sum(d) / np.float32(n)
        std[g] = np.sqrt(_squares(d, mean[g]) / np.float32(n))
        mean_a[g], mean_b[g] = _sum(a[g]) / np.float32(n), _sum(paired) / np.float32(n)
        _order_statistics(d, ranks, numbers, ends, wanted, kept, ordered[g])


def fold_changes(
    a: np.ndarray,
    b: np.ndarray,
    partner: np.ndarray,
    *,
    pseudocount: float,
    reported: float,
    delta: float,
    larger: bool,
    starts: np.ndarray,
    quantiles: tuple[float, ...],
) -> FoldChanges:
    """Summarise the log2 fold changes of paired draws.

    Parameters
    ----------
    a, b
        Draws of the two groups, float32, genes x draws, not negative.
    partner
        Column of `b` that each column of `a` is compared with.
    pseudocount
        c of the fold changes that are counted; at least 1e-30 is taken.
    reported
        c of the fold changes whose mean, deviation and quantiles are given.
    delta
        δ.
    larger
        Whether to count a > b in place of d >= δ.
    starts
        First draw of each part, rising from 0.
    quantiles
        Shares, rising; between two draws the quantile is interpolated, as :func:`numpy.quantile` does. NaN where a
        draw is not finite.

    Raises
    ------
    ValueError
        If shapes or partners do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> a, b = np.float32([[1, 2, 4, 8]]), np.float32([[1, 1, 1, 1]])
    >>> pairs = {"partner": np.arange(4), "starts": np.array([0]), "quantiles": (0.5,)}
    >>> found = fold_changes(a, b, pseudocount=0, reported=0, delta=1, larger=False, **pairs)
    >>> found.mean.item(), found.up.item(), round(found.quantiles.item(), 4)
    (1.5, 3, 1.5)
    """
    n_genes, n = a.shape
    positions = np.array(quantiles) * (n - 1)
    below = positions.astype(np.int64)
    ranks = np.minimum(below[:, None] + [0, 1], n - 1).ravel()
    ordered = np.empty((n_genes, len(ranks)), np.float32)
    bounds = np.append(starts, n).astype(np.int64)
    up, down = np.empty((2, len(starts), n_genes), np.int64)
    mean, std, mean_a, mean_b = (aligned_empty((n_genes,)) for _ in range(4))
    c, other = (max(np.float32(x), _LEAST) for x in (pseudocount, reported))
    partner = np.ascontiguousarray(partner, np.int64)
    if len(a) != len(b) or partner.shape != (n,) or (n and not 0 <= partner.min() <= partner.max() < b.shape[1]):
        msg = (
            f"`a` is {a.shape}, `b` {b.shape}; expected the same genes, and for each of the {n} draws of `a` a "
            f"`partner` from 0 to {b.shape[1] - 1}."
        )
        raise ValueError(msg)
    out = up, down, mean, std, ordered, mean_a, mean_b

    def work(first: int, last: int) -> None:
        _summarise(a, b, partner, first, last, c, other, np.float32(delta), larger, bounds, ranks, *out)

    share(n_genes, _SECONDS * a.size, work)
    lower, upper = ordered[:, ::2].T, ordered[:, 1::2].T
    between = (positions - below).astype(np.float32)[:, None]
    return FoldChanges(up, down, mean, std, lower + between * (upper - lower), mean_a, mean_b)
