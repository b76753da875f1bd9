"""Density of latent positions under a mixture of the posteriors of cells."""

from __future__ import annotations

import numpy as np

ROWS, COMPONENTS = 1024, 4096
"""Positions and components that are taken at a time."""


def log_density(
    z: np.ndarray, mean: np.ndarray, var: np.ndarray, *, own: np.ndarray | None = None, bandwidth: float = 0.0
) -> np.ndarray:
    """log of (1/N) sum_i N(z; m_i, diag(v_i + h^2)), the aggregate posterior of N cells, (n_positions,), float64.

    Parameters
    ----------
    z
        Positions, (n_positions, n_latent).
    mean, var
        Posterior moments of the cells, (N, n_latent).
    own
        For each position the number of the cell that it is of, or -1: that cell is left out of the mixture, which then
        has N - 1 components.
    bandwidth
        h, added to the spread of every component.
    """
    z, mean, spread = z.astype(np.float64), mean.astype(np.float64), var.astype(np.float64) + bandwidth**2
    total = np.full(len(z), -np.inf)
    for first in range(0, len(mean), COMPONENTS):
        m, v = mean[first : first + COMPONENTS], spread[first : first + COMPONENTS]
        for start in range(0, len(z), ROWS):
            part = slice(start, start + ROWS)
            log_p = log_components(z[part], m, v)
            if own is not None:
                inside = np.flatnonzero((own[part] >= first) & (own[part] < first + len(m)))
                log_p[inside, own[part][inside] - first] = -np.inf
            total[part] = np.logaddexp(total[part], _log_sum(log_p))
    n = len(mean) - (0 if own is None else own >= 0)
    return total - np.log(np.maximum(n, 1))  # the only cell of a mixture leaves nothing behind


def log_components(z: np.ndarray, mean: np.ndarray, var: np.ndarray) -> np.ndarray:
    """log N(z_j; m_i, diag v_i), (n_positions, n_components), by matrix products."""
    z, mean = z.astype(np.float64), mean.astype(np.float64)
    level = -0.5 * (mean**2 / var + np.log(2 * np.pi * var)).sum(1)
    return z @ (mean / var).T - 0.5 * (z**2 @ (1 / var).T) + level


def _log_sum(log_p: np.ndarray) -> np.ndarray:
    """log sum_j exp(log_p_j) of each row, in the memory of `log_p`."""
    top = log_p.max(1, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0.0)
    log_p -= top[:, None]
    with np.errstate(divide="ignore"):
        return top + np.log(np.exp(log_p, out=log_p).sum(1))
