"""Additive shifts of perturbations from the cells of their labels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

RIDGE = 1e-6
"""Cells' worth of a shift of zero, so that perturbations that only come together share what they do."""


class ShiftEstimate(NamedTuple):
    """Shifts mu_k by least squares, (n_perturbations, n_latent)."""

    shift: np.ndarray
    standard_error: np.ndarray
    n_cells: np.ndarray
    """Cells with the perturbation, alone or with others, (n_perturbations,)."""
    origin: np.ndarray
    """State without perturbations, in the mean over batches, (n_latent,); 0 where it is given."""
    batch_shift: np.ndarray
    """What the batches add to it, (n_batches, n_latent)."""
    variance: np.ndarray
    """Of the noise, (n_latent,)."""


def estimate_shifts(
    z: np.ndarray,
    labels: np.ndarray,
    design: np.ndarray,
    *,
    batch: np.ndarray | None = None,
    free_origin: bool = False,
    variance: np.ndarray | None = None,
) -> ShiftEstimate:
    """Fit z_n = origin + b_s + sum_k D_lk mu_k + noise, l the label and s the batch of cell n, sum_s b_s = 0.

    With one perturbation a label, one batch and a given origin these are the labels' means.

    Parameters
    ----------
    z
        Cells, (n_cells, n_latent).
    labels
        Label of each cell.
    design
        D, (n_labels, n_perturbations), 0 or 1.
    batch
        Batch of each cell; None where there is one.
    free_origin
        Whether the origin is estimated, for which some label must have no perturbation. Otherwise it is 0.
    variance
        Of the noise, (n_latent,), where it is known; by default that within labels and batches.
    """
    n_labels, n_perturbations = design.shape
    batch = np.zeros(len(z), np.int64) if batch is None else batch
    n_batches = int(batch.max(initial=0)) + 1
    cell_group, groups = _groups(labels, batch, n_labels)
    n = np.bincount(cell_group, minlength=len(groups)).astype(float)
    sums = np.stack([np.bincount(cell_group, column, len(groups)) for column in z.T.astype(float)], axis=1)
    of_label, of_batch = groups % n_labels, groups // n_labels
    others = np.hstack([np.ones((len(groups), int(free_origin))), _contrasts(n_batches)[of_batch]])
    columns = np.hstack([design[of_label], others])
    gram = columns.T @ (n[:, None] * columns) + RIDGE * np.eye(columns.shape[1])
    inverse = np.linalg.inv(gram)
    found = inverse @ (columns.T @ sums)
    if variance is None:
        means = sums / n[:, None]
        within = np.array([((z[:, j] - means[cell_group, j]) ** 2).sum() for j in range(z.shape[1])])
        variance = within / max(len(z) - len(groups), 1)
    error = np.sqrt(np.diag(inverse)[:n_perturbations, None] * variance)
    origin = found[n_perturbations] if free_origin else np.zeros(z.shape[1])
    batch_shift = _contrasts(n_batches) @ found[n_perturbations + int(free_origin) :]
    n_cells = design.T @ np.bincount(labels, minlength=n_labels)
    shift = found[:n_perturbations].astype(np.float32)
    return ShiftEstimate(shift, error.astype(np.float32), n_cells, origin, batch_shift, variance)


def _groups(labels: np.ndarray, batch: np.ndarray, n_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Group of each cell by label and batch, and the groups that there are, as batch * n_labels + label."""
    groups, of_cell = np.unique(batch.astype(np.int64) * n_labels + labels, return_inverse=True)
    return of_cell, groups


def _contrasts(n: int) -> np.ndarray:
    """Columns that code n categories so that what they add sums to zero, (n, n - 1)."""
    return np.vstack([np.eye(n - 1), -np.ones((1, n - 1))])
