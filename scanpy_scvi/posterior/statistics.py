"""Statistics of counts that a posterior predictive check compares."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class CountStatistics(NamedTuple):
    """Statistics over n counts each, arrays of one shape, float64."""

    mean: np.ndarray
    variance: np.ndarray
    """Divisor n."""
    zero_fraction: np.ndarray
    """Share of counts that are zero."""
    cv: np.ndarray
    """Coefficient of variation, standard deviation over mean; NaN where all counts are zero."""

    @classmethod
    def of_sums(cls, total: np.ndarray, squares: np.ndarray, positive: np.ndarray, n: int) -> CountStatistics:
        """Statistics from sums of counts, of their squares, and from the number of positive ones.

        The sums are whole numbers, exact in float64, so equal counts in another order give equal statistics.
        """
        mean = total / n
        variance = np.maximum(squares / n - mean**2, 0.0)
        cv = np.sqrt(variance) / np.where(mean > 0, mean, np.nan)
        return cls(mean, variance, 1 - positive / n, cv)


class Replicated(NamedTuple):
    """An observed statistic beside those of K replicates."""

    observed: np.ndarray
    replicated: np.ndarray
    """Mean over the replicates."""
    tail: np.ndarray
    """Estimate of P(T(replicate) >= T(observed)), between 0 and 1; ties count half."""

    @classmethod
    def of(cls, observed: np.ndarray, replicates: np.ndarray) -> Replicated:
        """Compare with `replicates` (K, ...).

        The tail is (larger + equal / 2 + 1/2) / (K + 1), the mean rank of the observed value among K + 1: on average
        one half where it is exchangeable with the replicates, and never 0 or 1. Replicates without the statistic (NaN)
        are left out.
        """
        there = ~np.isnan(replicates)
        n = there.sum(0)
        larger, equal = (replicates > observed).sum(0), (replicates == observed).sum(0)
        total = np.where(there, replicates, 0.0).sum(0)
        mean = np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)
        return cls(observed, mean, np.where(np.isnan(observed), np.nan, (larger + equal / 2 + 0.5) / (n + 1)))
