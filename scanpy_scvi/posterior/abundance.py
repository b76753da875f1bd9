"""Densities of samples in latent space, and how groups of samples differ in them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import entr, logsumexp, softmax

from .mixture import log_components, log_density

BANDWIDTHS = (0.0, *0.05 * 2 ** np.arange(0, 5.5, 0.5))
"""What is tried, in units of the prior's standard deviation."""
AVERAGED = 60
"""Cells that a density is to be an average of."""
JUDGES, POOL = 200, 20_000
"""Cells at which a bandwidth is judged, and cells that they are compared with, at most."""


class AbundanceChange(NamedTuple):
    """log2 ratio of the mean densities of two groups of samples, at each cell."""

    lfc: np.ndarray
    low: np.ndarray | None
    """Least value when one sample is left out; None where a side has a single sample."""
    high: np.ndarray | None


def choose_bandwidth(mean: np.ndarray, var: np.ndarray, codes: np.ndarray) -> float:
    """Smallest bandwidth under which the density at the median cell is an average of `AVERAGED` cells of all samples.

    Averaged are effectively as many cells as the perplexity says, exp(-sum_i p_i log p_i), with p_i the share of cell i
    in the density. A ratio of densities is as noisy as the numbers of cells that it is made of. Points without a
    variance have no density without a bandwidth.
    """
    rows = np.flatnonzero(codes >= 0)
    pool = rows[np.unique(np.linspace(0, len(rows) - 1, POOL).astype(np.int64))]
    own = np.unique(np.linspace(0, len(pool) - 1, JUDGES).astype(np.int64))
    wanted = min(AVERAGED, len(rows) / 2) * len(pool) / len(rows)
    for bandwidth in BANDWIDTHS if var.all() else BANDWIDTHS[1:]:
        found = log_components(mean[pool[own]], mean[pool], var[pool] + np.float64(bandwidth) ** 2)
        found[np.arange(len(own)), own] = -np.inf
        share = softmax(found, axis=1)
        if np.median(np.exp(entr(share).sum(1))) >= wanted:
            break
    return float(bandwidth)


def _components(codes: np.ndarray, sample: int, max_cells: int, random_state: int) -> np.ndarray:
    """Cells that the mixture of a sample is made of."""
    rows = np.flatnonzero(codes == sample)
    if len(rows) <= max_cells:
        return rows
    return np.sort(np.random.default_rng([random_state, sample]).choice(rows, max_cells, replace=False))


def sample_log_densities(
    mean: np.ndarray, var: np.ndarray, codes: np.ndarray, *, max_cells: int, bandwidth: float, random_state: int
) -> np.ndarray:
    """Log density of each sample at the posterior mean of each cell, (n_cells, n_samples), float32.

    A cell is left out of the mixture of its own sample. Cells with a code of -1 are in no mixture.
    """
    columns = []
    for sample in range(int(codes.max()) + 1):
        rows = _components(codes, sample, max_cells, random_state)
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
