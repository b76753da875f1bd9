"""Latent dimensions compared between two groups of cells.

A draw takes a cell a of one group and a cell b of the other, and the latent state of each from its posterior, z_a ~
N(m_a, v_a). Given the two cells, z_a - z_b is normal, so that the probability of a difference needs no further draws:

    P(z_a - z_b >= c) = mean over pairs of Phi((m_a - m_b - c) / sqrt(v_a + v_b))

Differences are in units of the standard deviation of z within the groups, since the scale of a latent dimension is
arbitrary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import ndtr

if TYPE_CHECKING:
    from .latent import LatentMoments

PAIRS = 500
"""Pairs of cells that are compared at a time."""


class ActivityDifference(NamedTuple):
    """What two groups of cells say of each latent dimension; all (n_latent,)."""

    p_up: np.ndarray
    """P(z_a - z_b >= delta sd)."""
    p_down: np.ndarray
    """P(z_a - z_b <= -delta sd)."""
    mean1: np.ndarray
    """Mean of z in the first group."""
    mean2: np.ndarray
    sd: np.ndarray
    """Standard deviation of z within the groups, root of the mean of their variances."""

    @property
    def effect(self) -> np.ndarray:
        """Difference of the means in standard deviations (Cohen's d, of groups that count alike); 0 without any."""
        return (self.mean1 - self.mean2) / np.where(self.sd > 0, self.sd, 1.0)

    @property
    def differs(self) -> np.ndarray:
        """Probability of the likelier of the two directions."""
        return np.maximum(self.p_up, self.p_down)


def compare_activities(
    first: LatentMoments, second: LatentMoments, *, delta: float, n_pairs: int, rng: np.random.Generator
) -> ActivityDifference:
    """Compare the latent states of two groups of cells, of which `n_pairs` pairs are drawn with replacement.

    Parameters
    ----------
    first, second
        Posterior moments of the groups' cells.
    delta
        Smallest difference that counts, in standard deviations.
    n_pairs
        Pairs to draw.
    rng
        Where the pairs come from.
    """
    (mean1, var1), (mean2, var2) = (_spread(group) for group in (first, second))
    sd = np.sqrt((var1 + var2) / 2)
    spread1, spread2 = first.spread(), second.spread()
    rows = rng.integers(len(first.mean), size=n_pairs), rng.integers(len(second.mean), size=n_pairs)
    up, down = np.zeros((2, len(sd)))
    for start in range(0, n_pairs, PAIRS):
        a, b = (side[start : start + PAIRS] for side in rows)
        gap = first.mean[a].astype(np.float64) - second.mean[b]
        width = np.sqrt(spread1[a].astype(np.float64) + spread2[b]).clip(1e-30)  # of points none, and pairs are counted
        up += ndtr((gap - delta * sd) / width).sum(0)
        down += ndtr((-gap - delta * sd) / width).sum(0)
    return ActivityDifference(up / n_pairs, down / n_pairs, mean1, mean2, sd)


def _spread(group: LatentMoments) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of z over cells and over what is uncertain in each."""
    mean = group.mean.astype(np.float64)
    return mean.mean(0), mean.var(0) + group.spread().astype(np.float64).mean(0)
