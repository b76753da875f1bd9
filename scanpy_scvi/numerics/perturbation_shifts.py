"""Shifts of groups of cells in a latent space, in units of the spread within groups."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

FLOOR = 1e-8
"""Directions with less than this share of the largest variance within groups are collapsed."""
CHUNK = 65536
"""Cells at a time."""


class GroupMoments(NamedTuple):
    """What is asked of the cells, (n_groups, ...) and (p, p)."""

    n_cells: np.ndarray
    means: np.ndarray
    within: np.ndarray
    """Pooled covariance within groups, S."""


class Whitening(NamedTuple):
    """A map that gives the cells of a group the covariance I."""

    matrix: np.ndarray
    """W = S^(-1/2), symmetric, (p, p), so that white cells stay as they are. Collapsed directions are only divided by
    the largest standard deviation."""
    kept: np.ndarray
    """Orthonormal basis, (p, p - n_collapsed), of the white directions."""
    collapsed: np.ndarray
    """The same of the others, (p, n_collapsed)."""


def group_moments(z: np.ndarray, groups: np.ndarray) -> GroupMoments:
    """Means of groups and their pooled covariance.

    Parameters
    ----------
    z
        Cells, (n_cells, p), finite.
    groups
        Number of each cell's group from 0 on, or -1 for cells that belong to none and do not count.

    Raises
    ------
    ValueError
        Where there are no two groups, one is empty, or the cells are too few to tell the covariance.
    """
    z, groups = np.asarray(z), np.asarray(groups)
    if z.ndim != 2 or groups.shape != z.shape[:1]:
        msg = f"`z` has shape {z.shape} and `groups` {groups.shape}, but (n_cells, p) and (n_cells,) were expected."
        raise ValueError(msg)
    n_groups, p = int(groups.max(initial=-1)) + 1, z.shape[1]
    n = np.bincount(groups[groups >= 0], minlength=n_groups)
    if not n.all():
        msg = f"Group {int(n.argmin())} of `groups` has no cells. Number the groups without a gap."
        raise ValueError(msg)
    if n.sum() - n_groups < p:
        msg = (
            f"There are {n.sum()} cells in {n_groups} groups, too few for a covariance of {p} dimensions within "
            f"groups: at least {n_groups + p} are needed."
        )
        raise ValueError(msg)
    sums, scatter = np.zeros((n_groups, p)), np.zeros((p, p))
    for rows in _chunks(groups):
        sums += np.stack([np.bincount(groups[rows], column, n_groups) for column in z[rows].T], axis=1)
    means = sums / n[:, None]
    for rows in _chunks(groups):
        centred = z[rows] - means[groups[rows]]
        scatter += centred.T @ centred
    if not np.isfinite(scatter).all():
        msg = "`z` has NaN or infinite values. Leave those cells out."
        raise ValueError(msg)
    return GroupMoments(n, means, scatter / (n.sum() - n_groups))


def _chunks(groups: np.ndarray) -> list[np.ndarray]:
    """Rows of cells that have a group, some at a time."""
    rows = np.flatnonzero(groups >= 0)
    return [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]


def whitening(within: np.ndarray, floor: float = FLOOR) -> Whitening:
    """Whiten by a covariance S, (p, p), of which directions below `floor` of the largest variance are collapsed.

    Raises
    ------
    ValueError
        Where S is zero.
    """
    variances, axes = np.linalg.eigh(within)
    if not variances[-1] > 0:
        msg = "All cells of a group have the same `z`, so there is no spread to measure shifts by."
        raise ValueError(msg)
    white = variances > floor * variances[-1]
    scales = 1 / np.sqrt(np.where(white, variances, variances[-1]))
    return Whitening((axes * scales) @ axes.T, axes[:, white], axes[:, ~white])


def spatial_median(points: np.ndarray, steps: int = 200) -> np.ndarray:
    """Return the point with the least sum of distances, (p,), which turns with the points (Weiszfeld's iteration)."""
    median: np.ndarray = points.mean(0)
    least = 1e-9 * float(np.abs(points - median).max())
    for _ in range(steps if least > 0 else 0):
        inverse = 1 / np.maximum(np.linalg.norm(points - median, axis=1), least)
        median = inverse @ points / inverse.sum()
    return median
