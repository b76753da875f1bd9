"""Perturbations, their targets, and the latent states of cells that have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._perturbation_protocols import Options

MOST_TARGETS = 3
SPREAD = 0.1  # standard deviation of shifts, in units of their mean


class Perturbations(NamedTuple):
    """What perturbations do; arrays are perturbations x latents."""

    targets: np.ndarray
    shifts: np.ndarray


class Cells(NamedTuple):
    """Cells in random order; perturbation -1 is the control."""

    perturbation: np.ndarray
    batch: np.ndarray
    escaped: np.ndarray
    z: np.ndarray
    confounded: np.ndarray  # perturbations, whether they are in one batch alone


def draw_perturbations(
    rng: np.random.Generator, n_perturbations: int, n_latent: int, shift: float, options: Options
) -> Perturbations:
    """One to three targets for each perturbation, and how far they are shifted."""
    shape = (n_perturbations, n_latent)
    targets = np.zeros(shape, bool)
    most = min(MOST_TARGETS, n_latent)
    for row, n in zip(targets, rng.integers(1, most, n_perturbations, endpoint=True), strict=True):
        row[rng.choice(n_latent, size=n, replace=options.replace_targets)] = True
    size = rng.choice([-1.0, 1.0], shape) * rng.normal(shift, SPREAD * shift, shape)
    return Perturbations(targets, np.where(targets, size, 0.0))


def draw_pairs(rng: np.random.Generator, n_perturbations: int, n_pairs: int) -> np.ndarray:
    """Different pairs of perturbations, the smaller number first, (n_pairs, 2)."""
    first, second = np.triu_indices(n_perturbations, 1)
    chosen = rng.choice(len(first), n_pairs, replace=False)
    return np.stack([first[chosen], second[chosen]], axis=1)


def draw_cells(
    rng: np.random.Generator, shifts: np.ndarray, cells_per_perturbation: int | Sequence[int], options: Options
) -> Cells:
    """Assign cells to perturbations and batches, and draw their latent states."""
    # a stream of its own for each step, so that an option changes nothing but what it names
    sizes, order, batches, escape, states = rng.spawn(5)
    perturbation = order.permutation(_labels(sizes, len(shifts), cells_per_perturbation, options))
    batch, confounded = _batches(batches, perturbation, len(shifts), options)
    escaped = (escape.random(len(perturbation)) < options.escaping_fraction) & (perturbation >= 0)
    shifted = (perturbation >= 0) & ~escaped
    z = _baseline(states, (len(perturbation), shifts.shape[1]), options.latent_correlation)
    z[shifted] += shifts[perturbation[shifted]]
    return Cells(perturbation, batch, escaped, z, confounded)


def _labels(
    rng: np.random.Generator, n_perturbations: int, cells_per_perturbation: int | Sequence[int], options: Options
) -> np.ndarray:
    noise = options.unequal_cells * rng.normal(size=n_perturbations) - options.unequal_cells**2 / 2
    if np.ndim(cells_per_perturbation):
        n_cells = np.asarray(cells_per_perturbation)
    else:
        n_cells = np.maximum(np.rint(np.asarray(cells_per_perturbation) * np.exp(noise)).astype(int), 1)
    perturbed = np.repeat(np.arange(n_perturbations), n_cells)
    share = options.control_fraction
    n_control = round(len(perturbed) * share / (1 - share))
    return np.concatenate([perturbed, np.full(n_control, -1)])


def _batches(
    rng: np.random.Generator, perturbation: np.ndarray, n_perturbations: int, options: Options
) -> tuple[np.ndarray, np.ndarray]:
    """Batches at random, but a single one for all cells of a confounded perturbation."""
    confounded = np.zeros(n_perturbations, bool)
    if options.n_batches > 1:
        n_confounded = round(options.confounded_fraction * n_perturbations)
        confounded[rng.permutation(n_perturbations)[:n_confounded]] = True
    only = rng.integers(options.n_batches, size=n_perturbations)
    batch = rng.integers(options.n_batches, size=len(perturbation))
    bound = (perturbation >= 0) & confounded[perturbation]
    batch[bound] = only[perturbation[bound]]
    return batch, confounded


def _baseline(rng: np.random.Generator, shape: tuple[int, int], correlation: float) -> np.ndarray:
    """Standard normal states, each pair of latents with the same correlation."""
    own, common = rng.normal(size=shape), rng.normal(size=(shape[0], 1))
    return np.sqrt(1 - correlation) * own + np.sqrt(correlation) * common
