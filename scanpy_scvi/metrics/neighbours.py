"""Nearest neighbours, exact where that is cheap."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.neighbors import NearestNeighbors

MOST_EXACT = 20_000
"""Cells up to which the search is exact; beyond, pynndescent finds nearly all neighbours in much less time."""
CHUNK = 4096


class Neighbours(NamedTuple):
    """Each cell's neighbours, nearest first; arrays are cells x neighbours."""

    indices: np.ndarray
    distances: np.ndarray


class Index:
    """Cells among which up to `n_neighbors` nearest ones are looked for, by Euclidean distance.

    Built once for any number of questions, and kept in memory only.
    """

    def __init__(self, points: np.ndarray, *, n_neighbors: int, random_state: int = 0) -> None:
        self.n_points, self.n_neighbors = len(points), n_neighbors
        self._exact = len(points) <= MOST_EXACT
        if self._exact:
            self._index = NearestNeighbors().fit(points)
            return
        from pynndescent import NNDescent  # compiles for seconds, so only where it is needed

        points = np.ascontiguousarray(points, np.float32)
        self._index = NNDescent(points, n_neighbors=n_neighbors + 1, random_state=random_state, n_jobs=1)

    def own(self) -> Neighbours:
        """Neighbours of each cell of the index, itself not counted."""
        n_neighbors = min(self.n_neighbors, self.n_points - 1)
        if self._exact:
            distances, indices = self._index.kneighbors(n_neighbors=n_neighbors)
            return Neighbours(indices, distances)
        indices, distances = (a.copy() for a in self._index.neighbor_graph)
        itself = indices == np.arange(self.n_points)[:, None]
        itself[~itself.any(1), -1] = True  # its last neighbour goes where the search did not find the cell itself
        shape = self.n_points, n_neighbors
        return Neighbours(indices[~itself].reshape(shape), distances[~itself].reshape(shape))

    def of(self, query: np.ndarray) -> Neighbours:
        """Neighbours of other cells, looked for some cells at a time."""
        n_neighbors = min(self.n_neighbors, self.n_points)
        if not self._exact:
            return Neighbours(*self._index.query(np.ascontiguousarray(query, np.float32), k=n_neighbors))
        starts = range(0, max(len(query), 1), CHUNK)
        found = (self._index.kneighbors(query[s : s + CHUNK], n_neighbors) for s in starts)
        distances, indices = zip(*found, strict=True)
        return Neighbours(np.concatenate(indices), np.concatenate(distances))


def nearest(
    reference: np.ndarray, query: np.ndarray | None = None, *, n_neighbors: int, random_state: int = 0
) -> Neighbours:
    """Nearest cells of `reference` by Euclidean distance: of each `query` cell, or of each other reference cell.

    Without `query`, a cell is no neighbour of itself. Where there are fewer cells than neighbours wanted, all are
    returned.
    """
    n_neighbors = min(n_neighbors, len(reference) - (query is None))
    index = Index(reference, n_neighbors=n_neighbors, random_state=random_state)
    return index.own() if query is None else index.of(query)
