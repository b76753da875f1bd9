"""What the nearest cells of a reference say of a new cell: labels, values, places."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .neighbours import MOST_EXACT, Index, nearest

if TYPE_CHECKING:
    from .neighbours import Neighbours

WITHIN = 15
"""Neighbours that say how far apart cells of one kind are."""
RIDGE = 0.1
"""Share of the mean variance that is added to every direction."""
BANDWIDTHS = 3.0
"""Distance of the farthest neighbour, in bandwidths of the kernel."""

PRIOR = 0.25
"""Power of a label's number of cells that its weight is divided by: new cells need not have the reference's shares."""


class Kin(NamedTuple):
    """The reference cells that speak for each new one: positions and weights, cells x neighbours; rows sum to 1."""

    indices: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, found: Neighbours) -> Kin:
        r"""Weigh neighbours by a Gaussian whose bandwidth is a third of the distance to the farthest."""
        squared = found.distances.astype(np.float64) ** 2
        farthest = np.maximum(squared[:, -1:], np.finfo(float).tiny)
        weights = np.exp(-0.5 * BANDWIDTHS**2 * (squared - squared[:, :1]) / farthest)
        return cls(found.indices, weights / weights.sum(1, keepdims=True))

    def probabilities(self, codes: np.ndarray, n_codes: int) -> np.ndarray:
        r"""Probability of each label, cells x labels: weight of its N_c cells, over :math:`N_c^{1/4}`."""
        n_cells, n_neighbors = self.indices.shape
        shares = np.zeros((n_cells, n_codes))
        rows = np.arange(n_cells)
        for j in range(n_neighbors):  # a cell has one label, so no row occurs twice
            shares[rows, codes[self.indices[:, j]]] += self.weights[:, j]
        shares /= np.maximum(np.bincount(codes, minlength=n_codes), 1.0) ** PRIOR
        return shares / shares.sum(1, keepdims=True)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Weighted mean of values or coordinates, one row for each reference cell."""
        return np.einsum("nk,nk...->n...", self.weights, values[self.indices])

    def variance(self, values: np.ndarray) -> np.ndarray:
        r"""Weighted variance around the weighted mean, over :math:`1 - \sum_k w_k^2` to be unbiased."""
        away = values[self.indices] - self.mean(values)[:, None]
        lost = np.maximum(1 - (self.weights**2).sum(1), np.finfo(float).tiny)
        return np.einsum("nk,nk->n", self.weights, away**2) / lost


def within_metric(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Matrix A for which neighbouring cells differ by the same in every direction of `points @ A`.

    The covariance W of differences between neighbours is that of noise and of what varies within a kind of cell;
    A A' is the inverse of W with a small ridge, so that distances are Mahalanobis distances under W.
    """
    some = points if len(points) <= MOST_EXACT else points[np.sort(rng.permutation(len(points))[:MOST_EXACT])]
    some = some.astype(np.float64)
    neighbours = nearest(some, n_neighbors=WITHIN).indices
    n_dims = some.shape[1]
    within = np.zeros((n_dims, n_dims))
    for j in range(neighbours.shape[1]):
        away = some - some[neighbours[:, j]]
        within += away.T @ away / neighbours.size
    mean_variance = np.trace(within) / n_dims
    if mean_variance == 0:  # no two cells differ
        return np.eye(n_dims)
    return np.linalg.inv(np.linalg.cholesky(within + RIDGE * mean_variance * np.eye(n_dims))).T


class Usual(NamedTuple):
    """Mean distance of each cell of a reference to its nearest others."""

    distances: np.ndarray

    @property
    def scale(self) -> float:
        """Their median, the unit of distances."""
        return float(max(np.median(self.distances), np.finfo(float).tiny))

    def threshold(self, rate: float) -> float:
        """Distance that a share `rate` of the reference's own cells exceeds, in units of `scale`."""
        return float(np.quantile(self.distances, 1 - rate)) / self.scale


class Space:
    """The cells of a reference in the metric of their neighbourhoods, with an index of them."""

    def __init__(self, points: np.ndarray, *, n_neighbors: int, random_state: int) -> None:
        self._metric = within_metric(points, np.random.default_rng(random_state))
        self._options = {"n_neighbors": n_neighbors, "random_state": random_state}
        self.points = points @ self._metric
        self.index = Index(self.points, **self._options)

    def place(self, points: np.ndarray) -> np.ndarray:
        """Coordinates of other cells."""
        return points @ self._metric

    def usual(self) -> Usual:
        """Distances that the cells have to each other."""
        return Usual(self.index.own().distances.mean(1, dtype=np.float64))

    def index_of(self, chosen: np.ndarray) -> Index:
        """Index of some of the cells alone."""
        return self.index if chosen.all() else Index(self.points[chosen], **self._options)
