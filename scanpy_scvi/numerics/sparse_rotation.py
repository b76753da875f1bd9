r"""Latent dimensions that few perturbations move, and perturbations that move few: a rotation found from centroids.

A latent space is known up to an invertible map. Where each perturbation shifts a few of the true dimensions and the
spread within a perturbation is that of independent dimensions, that map can be found from means and covariance alone:

1. whiten by the pooled covariance within perturbations, W = S^(-1/2);
2. M, the shifts of the centroids from that of the control, one row a perturbation, each divided by its standard error:
   m_k = (c_k - c_0) W / s_k with s_k^2 = 1 / n_k + 1 / n_0;
3. R, the orthogonal matrix that makes M R sparsest (:mod:`~scanpy_scvi.numerics.orthogonal_search`).

The rotated latent state is (z - c_0) W R. Without a control, shifts are counted from the median perturbation: of each
rotated dimension the origin is the point from which the perturbations' shifts are sparsest, a smooth median found
together with R, and s_k^2 = 1 / n_k.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg import qr

from .orthogonal_search import polar, sparsest_rotation
from .perturbation_shifts import CHUNK, GroupMoments, Whitening, group_moments, spatial_median, whitening

N_STARTS = 10
LEAST_CELLS, LEAST_GROUPS = 2, 2
"""Cells of a perturbation, and such perturbations, that a rotation needs."""
RANK = 1e-10
"""Smallest singular value of the weighted shifts, as a share of the largest, that spans a direction."""


class Rotation(NamedTuple):
    """A linear map of latent states, `rotated = (z - center) @ matrix`, and what it makes of the perturbations."""

    matrix: np.ndarray
    """W R, (p, p), invertible: `z = rotated @ inv(matrix) + center`. The covariance within perturbations is I
    afterwards, except for collapsed directions."""
    center: np.ndarray
    """(p,): the control's centroid, or the median perturbation."""
    shifts: np.ndarray
    """Centroids of the groups after the map, (n_groups, p), in standard deviations within perturbations. Zero for the
    control."""
    standard_errors: np.ndarray
    """Standard error of a group's shifts, the same in every dimension, (n_groups,): root of 1 / n_k + 1 / n_0, without
    a control of 1 / n_k; for the control, of its own mean."""
    n_cells: np.ndarray
    """(n_groups,)."""
    criterion: float
    """Smooth L1 norm of the shifts over their standard errors; ICA has its own, the larger the better."""
    n_agree: int
    """How many of the starts ended at this criterion. Where it is one, more starts may find a better one."""
    n_moved: int
    """Dimensions that were rotated, the first ones. Where the perturbations span fewer than there are, no perturbation
    moves the following."""
    n_collapsed: int
    """Directions without a spread within perturbations; they are the last dimensions, and are not white."""

    @property
    def inverse(self) -> np.ndarray:
        """Inverse of the matrix, (p, p)."""
        inverse: np.ndarray = np.linalg.inv(self.matrix)
        return inverse

    def rotate(self, z: np.ndarray) -> np.ndarray:
        """Return `(z - center) @ matrix`, float32, (n_cells, p)."""
        rotated = np.empty(z.shape, np.float32)
        for start in range(0, len(z), CHUNK):
            rows = slice(start, start + CHUNK)
            rotated[rows] = (z[rows] - self.center) @ self.matrix
        return rotated


class Centroids(NamedTuple):
    """Where the groups of cells are, and which of them a rotation is found from."""

    moments: GroupMoments
    white: Whitening
    center: np.ndarray
    """What shifts are counted from, (p,); without a control a first guess."""
    errors: np.ndarray
    """Standard errors of the shifts, (n_groups,)."""
    shaping: np.ndarray
    """Groups that count: not the control, and not those of a single cell."""

    @property
    def shifts(self) -> np.ndarray:
        """Shifts of the groups that count, in the whitened space, (n_shaping, p)."""
        shifts: np.ndarray = (self.moments.means[self.shaping] - self.center) @ self.white.matrix
        return shifts

    @property
    def weights(self) -> np.ndarray:
        """One over their standard errors, (n_shaping,)."""
        weights: np.ndarray = 1 / self.errors[self.shaping]
        return weights


def sparse_rotation(
    z: np.ndarray,
    groups: np.ndarray,
    *,
    control: int | None = None,
    n_starts: int = N_STARTS,
    random_state: int | np.random.Generator = 0,
) -> Rotation:
    """Rotate a latent space so that the shifts of perturbations are sparse.

    Dimensions are sorted by the sum of the perturbations' absolute shifts over their standard errors, falling: first
    come those that many perturbations move, or move far. In each, the longer tail of the shifts is up. Where there are
    fewer perturbations than dimensions, only the directions that they span are rotated; the others follow, as near to
    the whitened axes as can be, and no perturbation moves them. Collapsed directions come last.

    Parameters
    ----------
    z
        Latent states, (n_cells, p), finite.
    groups
        Number of each cell's perturbation from 0 on, without gaps; -1 for cells that have none and do not count.
    control
        Number of the control, from which shifts are counted; None to count from the median perturbation.
    n_starts
        Starts of the search.
    random_state
        Seed of the starts.

    Raises
    ------
    ValueError
        Where fewer than two perturbations, beside the control, have two cells; for cells, groups or a control that
        cannot be used.
    """
    centroids = find_centroids(z, groups, control)
    white, shifts, weights = centroids.white, centroids.shifts, centroids.weights
    span = _nearest_axes(_spanned(weights[:, None] * shifts @ white.kept, white.kept))
    rng = np.random.default_rng(random_state)
    best = sparsest_rotation(shifts @ span, weights, free_origin=control is None, n_starts=n_starts, rng=rng)
    center = centroids.center + np.linalg.solve(white.matrix, span @ best.origin)
    turn = np.hstack([span @ best.turn, _nearest_axes(_complement(span, white.kept)), _nearest_axes(white.collapsed)])
    matrix = white.matrix @ turn
    return rotation_of(centroids, matrix, center, n_moved=span.shape[1], quality=(best.criterion, best.n_agree))


def find_centroids(z: np.ndarray, groups: np.ndarray, control: int | None) -> Centroids:
    """Whitening, centre, and the errors of centroids; raise where there is nothing to rotate by."""
    moments = group_moments(z, groups)
    n = moments.n_cells
    if control is not None and not 0 <= control < len(n):
        msg = f"`control` is {control}, but the number of a group, from 0 to {len(n) - 1}, was expected."
        raise ValueError(msg)
    shaping = np.flatnonzero((n >= LEAST_CELLS) & (np.arange(len(n)) != (-1 if control is None else control)))
    if len(shaping) < LEAST_GROUPS:
        beside = "" if control is None else " beside the control"
        msg = (
            f"Only {len(shaping)} perturbations with at least {LEAST_CELLS} cells were found{beside}, but to rotate by "
            f"perturbations at least {LEAST_GROUPS} are needed, and better more than there are dimensions."
        )
        raise ValueError(msg)
    white = whitening(moments.within)
    if control is not None:
        errors = np.sqrt(1 / n + np.where(np.arange(len(n)) == control, 0, 1 / n[control]))
        return Centroids(moments, white, moments.means[control], errors, shaping)
    median = spatial_median(moments.means[shaping] @ white.matrix)
    return Centroids(moments, white, np.linalg.solve(white.matrix, median), 1 / np.sqrt(n), shaping)


def rotation_of(
    centroids: Centroids, matrix: np.ndarray, center: np.ndarray, *, n_moved: int, quality: tuple[float, int]
) -> Rotation:
    """Sort and sign the first `n_moved` columns of a matrix, and say where the groups come to lie."""
    moments, rows = centroids.moments, centroids.shaping
    entries = centroids.weights[:, None] * ((moments.means[rows] - center) @ matrix[:, :n_moved])
    order = np.argsort(-np.abs(entries).sum(0), kind="stable")
    signs = np.where((entries[:, order] ** 3).sum(0) < 0, -1.0, 1.0)
    matrix = np.hstack([matrix[:, order] * signs, matrix[:, n_moved:]])
    shifts = (moments.means - center) @ matrix
    n_collapsed = centroids.white.collapsed.shape[1]
    return Rotation(matrix, center, shifts, centroids.errors, moments.n_cells, *quality, n_moved, n_collapsed)


def _spanned(entries: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Orthonormal basis of the directions that rows span, given in the coordinates of a `basis`."""
    _, sizes, axes = np.linalg.svd(entries, full_matrices=False)
    if not sizes[0] > 0:
        msg = "All perturbations have the same mean, so there is nothing to rotate by."
        raise ValueError(msg)
    spanned: np.ndarray = basis @ axes[sizes > RANK * sizes[0]].T
    return spanned


def _complement(span: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Orthonormal basis of what lies in `basis` and not in `span`."""
    axes, _, _ = np.linalg.svd(basis.T @ span)
    complement: np.ndarray = basis @ axes[:, span.shape[1] :]
    return complement


def _nearest_axes(basis: np.ndarray) -> np.ndarray:
    """Return that orthonormal basis of the same space which is nearest to some of the axes, in their order.

    A space has one such basis, however it is given; that of a space of axes are these axes.
    """
    if not basis.shape[1]:
        return basis
    _, _, pivots = qr(basis.T, mode="economic", pivoting=True)
    near = np.sort(pivots[: basis.shape[1]])
    nearest: np.ndarray = basis @ polar(basis[near].T)
    return nearest
