"""Densities of samples in latent space, and how groups of samples differ in them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from .mixture import log_density


class AbundanceChange(NamedTuple):
    """log2 ratio of the mean densities of two groups of samples, at each cell."""

    lfc: np.ndarray
    low: np.ndarray | None
    """Least value when one sample is left out; None where a side has a single sample."""
    high: np.ndarray | None


def sample_log_densities(
    mean: np.ndarray, var: np.ndarray, codes: np.ndarray, *, max_cells: int, bandwidth: float, random_state: int
) -> np.ndarray:
    """Log density of each sample at the posterior mean of each cell, (n_cells, n_samples), float32.

    A cell is left out of the mixture of its own sample. Cells with a code of -1 are in no mixture.
    """
    columns = []
    for sample in range(int(codes.max()) + 1):
        rows = np.flatnonzero(codes == sample)
        if len(rows) > max_cells:
            rng = np.random.default_rng([random_state, sample])
            rows = np.sort(rng.choice(rows, max_cells, replace=False))
        own = np.full(len(mean), -1)
        own[rows] = np.arange(len(rows))
        found = log_density(mean, mean[rows], var[rows], own=own, bandwidth=bandwidth)
        columns.append(found.astype(np.float32))
    return np.stack(columns, axis=1)


def log_fold_change(log_densities: np.ndarray, group: np.ndarray, reference: np.ndarray) -> AbundanceChange:
    """log2 of the mean density over the samples `group` less that over the samples `reference` (columns)."""
    log_densities = log_densities.astype(np.float64)

    def log_mean(samples: np.ndarray) -> np.ndarray:
        return logsumexp(log_densities[:, samples], axis=1) - np.log(len(samples))

    def ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (log_mean(a) - log_mean(b)) / np.log(2)

    lfc = ratio(group, reference)
    if min(len(group), len(reference)) < 2:
        return AbundanceChange(lfc, None, None)
    low, high = lfc.copy(), lfc.copy()
    for sample in (*group, *reference):
        without = ratio(group[group != sample], reference[reference != sample])
        np.minimum(low, without, out=low)
        np.maximum(high, without, out=high)
    return AbundanceChange(lfc, low, high)
