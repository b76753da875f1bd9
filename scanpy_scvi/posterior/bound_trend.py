"""Bounds of cells made comparable: what is usual for a total, and percentiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..numerics.least_squares import least_squares, parts_of_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

KNOTS = (0.05, 0.35, 0.65, 0.95)
"""Quantiles of the log totals at which the spline bends; beyond the outer two it is straight."""


@dataclass(frozen=True)
class BoundTrend:
    """Usual evidence bound of a cell with its total, in its batch, and the usual distance from it.

    E[b] = spline(t) + a_s with a restricted cubic spline of the log total t (straight beyond the outer knots), and
    log E|b - E[b]| a straight line in t, both by least squares.
    """

    knots: np.ndarray
    level: np.ndarray
    spread: np.ndarray
    shares: np.ndarray
    """Share of each batch among the reference cells."""

    @classmethod
    def of(cls, bound: np.ndarray, log_total: np.ndarray, batch: np.ndarray) -> BoundTrend:
        """Fit to reference cells."""
        knots = np.unique(np.quantile(log_total.astype(np.float64), KNOTS))
        n_batches = int(batch.max()) + 1

        def designs() -> Iterator[tuple[slice, np.ndarray]]:
            for part in parts_of_rows(len(bound)):
                yield part, _level_design(log_total[part], batch[part], knots, n_batches)

        level = least_squares((design, bound[part]) for part, design in designs())
        distance = np.concatenate([np.abs(bound[part] - design @ level) for part, design in designs()])
        floor = max(1e-3 * distance.mean(), np.finfo(np.float64).tiny)
        log_distance = np.log(np.maximum(distance, floor))
        spread = least_squares((_straight(log_total[part]), log_distance[part]) for part in parts_of_rows(len(bound)))
        return cls(knots, level, spread, np.bincount(batch) / len(batch))

    def standardise(self, bound: np.ndarray, log_total: np.ndarray, batch: np.ndarray) -> np.ndarray:
        """(b - E[b]) / exp(E log|b - E[b]|), (n,); a batch that the reference lacks is taken for its average batch."""
        parts = parts_of_rows(len(bound))
        return np.concatenate([self._standardised(bound[p], log_total[p], batch[p]) for p in parts])

    def _standardised(self, bound: np.ndarray, log_total: np.ndarray, batch: np.ndarray) -> np.ndarray:
        n_batches = len(self.shares)
        design = _level_design(log_total, batch, self.knots, n_batches)
        design[batch >= n_batches, design.shape[1] - (n_batches - 1) :] = self.shares[1:]
        expected = design @ self.level
        return (bound - expected) / np.exp(_straight(log_total) @ self.spread)


def percentile(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Share of the reference below each value, ties counted half, kept inside (0, 1): (rank + 1/2) / (n + 1)."""
    ordered = np.sort(reference)
    below, upto = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return ((below + upto) / 2 + 0.5) / (len(ordered) + 1)


def _straight(log_total: np.ndarray) -> np.ndarray:
    return np.stack([np.ones(len(log_total)), log_total.astype(np.float64)], axis=1)


def _level_design(log_total: np.ndarray, batch: np.ndarray, knots: np.ndarray, n_batches: int) -> np.ndarray:
    """Columns of the restricted cubic spline (Harrell 2015, Regression Modeling Strategies, 2.4.5), and batches."""
    t = log_total.astype(np.float64)
    columns = [*_straight(t).T]
    if len(knots) > 2:
        last, before = knots[-1], knots[-2]
        for knot in knots[:-2]:
            cubes = [np.maximum(t - k, 0) ** 3 for k in (knot, before, last)]
            bend = cubes[0] - cubes[1] * (last - knot) / (last - before) + cubes[2] * (before - knot) / (last - before)
            columns.append(bend / (last - knots[0]) ** 2)
    columns += [batch == b for b in range(1, n_batches)]
    return np.stack(columns, axis=1).astype(np.float64, copy=False)
