"""Additive shifts of perturbations from the means of labels."""

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


def estimate_shifts(z: np.ndarray, labels: np.ndarray, design: np.ndarray) -> ShiftEstimate:
    """Fit z_n = sum_k D_lk mu_k + noise, l the label of cell n.

    With one perturbation a label these are the labels' means. The variance of the noise is that within labels, of each
    dimension.

    Parameters
    ----------
    z
        Cells, (n_cells, n_latent), the control at zero.
    labels
        Label of each cell.
    design
        D, (n_labels, n_perturbations), 0 or 1.
    """
    n_labels, n_latent = len(design), z.shape[1]
    n = np.bincount(labels, minlength=n_labels).astype(float)
    sums = np.stack([np.bincount(labels, column, n_labels) for column in z.T.astype(float)], axis=1)
    means = sums / np.maximum(n, 1)[:, None]
    gram = design.T @ (n[:, None] * design) + RIDGE * np.eye(design.shape[1])
    shift = np.linalg.solve(gram, design.T @ sums)
    within = np.array([((z[:, j] - means[labels, j]) ** 2).sum() for j in range(n_latent)])
    variance = within / max(len(z) - int((n > 0).sum()), 1)
    error = np.sqrt(np.diag(np.linalg.inv(gram))[:, None] * variance)
    return ShiftEstimate(shift.astype(np.float32), error.astype(np.float32), design.T @ n)
