"""Additive shifts of perturbations from the cells of their labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_FREE = 10
"""Degrees of freedom that a variance of the noise is estimated from, at least."""
LEAST_VARIANCE = 1e-12
"""Of the noise, so that the errors of a dimension that says nothing are above zero."""
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

    @property
    def evidence(self) -> np.ndarray:
        """What shifts bring with a prior of variance one, n_k mu_kj^2 / 2 nats, (n_perturbations, n_latent)."""
        evidence: np.ndarray = self.n_cells[:, None] * self.shift.astype(np.float64) ** 2 / 2
        return evidence


def link_design(
    label: np.ndarray, perturbation: np.ndarray, n_labels: int, n_perturbations: int
) -> sparse.csr_array[np.float64]:
    """D, (n_labels, n_perturbations), 1 where there is a link from a label to a perturbation; both (n_links,)."""
    ones = np.ones(len(label))
    return sparse.csr_array((ones, (label, perturbation)), shape=(n_labels, n_perturbations))


def estimate_shifts(
    z: np.ndarray,
    labels: np.ndarray,
    design: np.ndarray | sparse.csr_array,
    *,
    batch: np.ndarray | None = None,
    free_origin: bool = False,
    variance: np.ndarray | None = None,
) -> ShiftEstimate:
    """Fit z_n = origin + b_s + sum_k D_lk mu_k + noise, l the label and s the batch of cell n, sum_s b_s = 0.

    With one perturbation a label, one batch and a given origin these are the labels' means. Memory is that of the
    cells, of the links, and of two matrices of n_perturbations + n_batches rows and columns.

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
        Of the noise, (n_latent,), where it is known; by default that within labels and batches. Where hardly any cells
        share a label and a batch, as where each has many perturbations, that of what least squares leave; and where
        there are hardly more cells than shifts, that of all cells about the origin.
    """
    design = sparse.csr_array(design, dtype=np.float64)
    n_labels, n_perturbations = design.shape
    batch = np.zeros(len(z), np.int64) if batch is None else batch
    n_batches = int(batch.max(initial=0)) + 1
    cell_group, groups = _groups(labels, batch, n_labels)
    n = np.bincount(cell_group, minlength=len(groups)).astype(float)
    sums = np.stack([np.bincount(cell_group, column, len(groups)) for column in z.T.astype(float)], axis=1)
    of_label, of_batch = groups % n_labels, groups // n_labels
    origin_column = sparse.csr_array(np.ones((len(groups), int(free_origin))))
    of_batches = sparse.csr_array(_contrasts(n_batches))[of_batch]
    columns = sparse.csr_array(sparse.hstack([design[of_label], origin_column, of_batches]))
    gram = (columns.T @ columns.multiply(n[:, None])).toarray() + RIDGE * np.eye(columns.shape[1])
    inverse = np.linalg.inv(gram)
    found = inverse @ (columns.T @ sums)
    if variance is None:
        variance = _noise(z, cell_group, sums / n[:, None], columns @ found, columns.shape[1])
    error = np.sqrt(np.diag(inverse)[:n_perturbations, None] * variance)
    origin = found[n_perturbations] if free_origin else np.zeros(z.shape[1])
    batch_shift = _contrasts(n_batches) @ found[n_perturbations + int(free_origin) :]
    n_cells = design.T @ np.bincount(labels, minlength=n_labels)
    shift = found[:n_perturbations].astype(np.float32)
    return ShiftEstimate(shift, error.astype(np.float32), n_cells, origin, batch_shift, variance)


def _noise(
    z: np.ndarray, cell_group: np.ndarray, means: np.ndarray, fitted: np.ndarray, n_columns: int
) -> NDArray[np.float64]:
    """Variance of the noise, (n_latent,), about the finest of three means that leaves cells to tell it from."""
    n, free = len(z), (len(z) - len(means), len(z) - n_columns)
    if free[0] >= LEAST_FREE:
        centre, n_free = means, free[0]
    elif free[1] >= LEAST_FREE:
        centre, n_free = fitted, free[1]
    else:
        centre, n_free = np.zeros_like(means), n
    squares = np.array([((z[:, j] - centre[cell_group, j]) ** 2).sum() for j in range(z.shape[1])])
    return np.maximum(squares / n_free, LEAST_VARIANCE)


def _groups(labels: np.ndarray, batch: np.ndarray, n_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Group of each cell by label and batch, and the groups that there are, as batch * n_labels + label."""
    groups, of_cell = np.unique(batch.astype(np.int64) * n_labels + labels, return_inverse=True)
    return of_cell, groups


def _contrasts(n: int) -> np.ndarray:
    """Columns that code n categories so that what they add sums to zero, (n, n - 1)."""
    return np.vstack([np.eye(n - 1), -np.ones((1, n - 1))])
