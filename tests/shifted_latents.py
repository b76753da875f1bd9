"""Latent states of perturbed cells behind an unknown linear map, and how well a map is undone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment


class Shifted(NamedTuple):
    """Cells with a known answer."""

    seen: np.ndarray
    """z A + a with a random invertible A, what a model would give, (n_cells, p)."""
    z: np.ndarray
    """The true latent states: shift + N(0, I)."""
    groups: np.ndarray
    """Perturbation of each cell; the control, where there is one, is the last."""
    shifts: np.ndarray
    """True shifts, (n_perturbations, p)."""


def shifted_latents(
    seed: int = 0,
    *,
    n_perturbations: int = 60,
    n_latent: int = 15,
    n_cells: int = 60,
    sizes: tuple[float, float] = (5.0, 5.0),
    n_control: int = 0,
    spread: float = 0.0,
    one_sided: bool = False,
) -> Shifted:
    """Draw cells whose perturbations each shift one to three latent dimensions.

    Cells per perturbation are log-normal around `n_cells` with standard deviation `spread`, at least five.
    """
    rng = np.random.default_rng(seed)
    shifts = np.zeros((n_perturbations, n_latent))
    for row in shifts:
        targets = rng.choice(n_latent, rng.integers(1, 4), replace=False)
        signs = 1.0 if one_sided else rng.choice([-1.0, 1.0], len(targets))
        row[targets] = signs * rng.uniform(*sizes, len(targets))
    n = np.maximum(5, np.exp(rng.normal(np.log(n_cells), spread, n_perturbations))).astype(int)
    groups = np.repeat(np.arange(n_perturbations + 1), [*n, n_control])
    z = np.vstack([shifts, np.zeros(n_latent)])[groups] + rng.normal(size=(len(groups), n_latent))
    return Shifted(z @ rng.normal(size=(n_latent, n_latent)) + rng.normal(size=n_latent), z, groups, shifts)


def matched(true: np.ndarray, found: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Mean absolute correlation of matched columns; the column of `found` for each of `true`, and its sign."""
    p = true.shape[1]
    correlation = np.corrcoef(true.T, found.T)[:p, p:]
    rows, columns = linear_sum_assignment(-np.abs(correlation))
    return float(np.abs(correlation[rows, columns]).mean()), columns, np.sign(correlation[rows, columns])
