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


def nearest(
    reference: np.ndarray, query: np.ndarray | None = None, *, n_neighbors: int, random_state: int = 0
) -> Neighbours:
    """Nearest cells of `reference` by Euclidean distance: of each `query` cell, or of each other reference cell.

    Without `query`, a cell is no neighbour of itself. Where there are fewer cells than neighbours wanted, all are
    returned.
    """
    own = query is None
    n_neighbors = min(n_neighbors, len(reference) - own)
    if len(reference) > MOST_EXACT:
        return _approximate(reference, query, n_neighbors, random_state)
    index = NearestNeighbors(n_neighbors=n_neighbors).fit(reference)
    if query is None:
        distances, indices = index.kneighbors()
        return Neighbours(indices, distances)
    starts = range(0, max(len(query), 1), CHUNK)
    distances, indices = zip(*(index.kneighbors(query[s : s + CHUNK]) for s in starts), strict=True)
    return Neighbours(np.concatenate(indices), np.concatenate(distances))


def _approximate(reference: np.ndarray, query: np.ndarray | None, n_neighbors: int, random_state: int) -> Neighbours:
    from pynndescent import NNDescent  # compiles for seconds, so only where it is needed

    reference = np.ascontiguousarray(reference, np.float32)
    index = NNDescent(reference, n_neighbors=n_neighbors + 1, random_state=random_state, n_jobs=1)
    if query is not None:
        return Neighbours(*index.query(np.ascontiguousarray(query, np.float32), k=n_neighbors))
    indices, distances = (a.copy() for a in index.neighbor_graph)
    itself = indices == np.arange(len(reference))[:, None]
    itself[~itself.any(1), -1] = True  # its last neighbour goes where the search did not find the cell itself
    shape = len(reference), n_neighbors
    return Neighbours(indices[~itself].reshape(shape), distances[~itself].reshape(shape))
