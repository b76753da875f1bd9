"""What shifts of nothing look like, from cells of the control that are split into pseudo-perturbations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

N_SPLITS = 200
LEAST_CONTROLS = 20
"""Control cells below which nothing is split."""


class NullShifts(NamedTuple):
    """Shifts of pseudo-perturbations, each from the other control cells."""

    shift: np.ndarray
    """(n_null, n_latent)."""
    standard_error: np.ndarray
    n_cells: np.ndarray
    """(n_null,)."""

    @property
    def scores(self) -> np.ndarray:
        """Sizes of shifts in standard errors, (n_null, n_latent)."""
        scores: np.ndarray = np.abs(self.shift) / self.standard_error
        return scores


def split_control(
    z: np.ndarray, variance: np.ndarray, sizes: np.ndarray, *, rng: np.random.Generator, groups: np.ndarray | None
) -> NullShifts | None:
    """Shifts of parts of the control from the rest; None where there are too few cells.

    Parameters
    ----------
    z
        Control cells, (n_cells, n_latent), what batches add taken off.
    variance
        Variance within labels, (n_latent,), from which the standard errors of perturbations are.
    sizes
        Numbers of cells of the perturbations: parts are as large as some of them, but at most half of the control.
    rng
        Draws the parts.
    groups
        Group of each control cell that should not differ from the others, as the guides of a control do not, -1 for
        none; parts are these groups. None for parts at random.
    """
    n = len(z)
    if n < LEAST_CONTROLS:
        return None
    if groups is None:
        of_size = np.clip(rng.choice(sizes, N_SPLITS), 2, n // 2).astype(int)
        parts = [rng.choice(n, size, replace=False) for size in of_size]
    else:
        parts = [np.flatnonzero(groups == g) for g in np.unique(groups[groups >= 0])]
        parts = [part for part in parts if 2 <= len(part) <= n - 2]
    if not parts:
        return None
    total = z.sum(0, dtype=float)
    n_cells = np.array([len(part) for part in parts])
    sums = np.stack([z[part].sum(0, dtype=float) for part in parts])
    shift = sums / n_cells[:, None] - (total - sums) / (n - n_cells)[:, None]
    error = np.sqrt((1 / n_cells + 1 / (n - n_cells))[:, None] * variance)
    return NullShifts(shift.astype(np.float32), error.astype(np.float32), n_cells)


def errors_needed(null: NullShifts | None, n_latent: int, level: float) -> float:
    """Standard errors that no shift of a perturbation without any exceeds, but with probability `level`.

    The larger of what a normal distribution says, and the pseudo-perturbations.
    """
    needed = float(stats.norm.isf(level / (2 * n_latent)))
    if null is None:
        return needed
    return max(needed, float(np.quantile(null.scores.max(1), 1 - level)))


def q_values(scores: np.ndarray, null: NullShifts | None) -> np.ndarray:
    """Expected share of false ones among all shifts with scores as large (Benjamini and Hochberg 1995).

    Scores of no shift are normal, with the width that those of the pseudo-perturbations have, where that is larger.
    """
    width = 1.0 if null is None else max(1.0, float(np.sqrt(np.mean(null.scores**2))))
    p = 2 * stats.norm.sf(scores / width)
    return np.asarray(stats.false_discovery_control(p.ravel())).reshape(p.shape)
