"""How far from a reference a cell may be and still be one of its kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .neighbours import MOST_EXACT, nearest

if TYPE_CHECKING:
    from .neighbourhood import Space

LEAST_CELLS = 50
"""Cells that the median of a ratio needs."""


class Usual(NamedTuple):
    """What distances the cells of a reference have to each other."""

    distances: np.ndarray
    """Mean distance of each cell to its nearest others, sorted."""
    unseen: float
    """How many times as far cells lie that the model was not trained on; at least 1."""
    batch: float
    """How many times as far cells lie from those of other batches; at least 1."""

    @classmethod
    def of(
        cls, space: Space, *, held_out: np.ndarray, batch: np.ndarray, n_neighbors: int, rng: np.random.Generator
    ) -> Usual:
        """Look at the cells of a reference; `batch` has codes, -1 where unknown."""
        distances = space.index.own().distances.mean(1, dtype=np.float64)
        chosen = np.sort(rng.permutation(len(batch))[:MOST_EXACT])
        between = _between_batches(space.points[chosen], batch[chosen], n_neighbors)
        return cls(np.sort(distances), _unseen(distances, held_out), between)

    @property
    def scale(self) -> float:
        """Median distance, the unit of what is reported."""
        return float(max(np.median(self.distances), np.finfo(float).tiny))

    def threshold(self, rate: float, *, new_batch: bool) -> float:
        """Distance beyond which a share `rate` of cells of known kinds is expected, in units of `scale`."""
        usual = float(np.quantile(self.distances, 1 - rate)) * self.unseen * (self.batch if new_batch else 1.0)
        return usual / self.scale


def _unseen(distances: np.ndarray, held_out: np.ndarray) -> float:
    if min(held_out.sum(), (~held_out).sum()) < LEAST_CELLS:
        return 1.0
    return float(max(np.median(distances[held_out]) / max(np.median(distances[~held_out]), 1e-300), 1))


def _between_batches(points: np.ndarray, batch: np.ndarray, n_neighbors: int) -> float:
    """Median ratio of the distance to cells of other batches and to all cells, for the same share of either."""
    known = batch >= 0
    points, batch = points[known], batch[known]
    ratios = []
    for code in np.unique(batch):
        mine = batch == code
        others = points[~mine]
        share = len(others) / max(len(points) - 1, 1)
        k = max(round(n_neighbors * share), 1)
        if len(others) < k or len(points) <= n_neighbors:
            continue
        to_others = nearest(others, points[mine], n_neighbors=k).distances.mean(1)
        to_all = nearest(points, points[mine], n_neighbors=n_neighbors + 1).distances[:, 1:].mean(1)
        ratios.append(to_others / np.maximum(to_all, 1e-300))
    found = np.concatenate(ratios) if ratios else np.empty(0)
    return float(max(np.median(found), 1)) if len(found) >= LEAST_CELLS else 1.0
