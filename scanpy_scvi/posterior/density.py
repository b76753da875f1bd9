"""Densities of latent states and library sizes, fitted to a model's cells afterwards."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

if TYPE_CHECKING:
    from collections.abc import Iterator

Kind = Literal["full", "diag"]
KINDS: tuple[Kind, ...] = ("full", "diag")
"""With and without covariances within a component."""
COMPONENTS = (1, 2, 4, 8, 16, 32, 64)
HELD_OUT = 5
"""One point in so many is set aside to judge by."""
POINTS_PER_DIMENSION = 5
"""Points that a component with covariances needs for each dimension."""
MOST_POINTS = 20_000
"""Points that a density is fitted to at most."""
FLOOR = 1e-4
"""Added to variances."""
CHUNK = 8192


class Drawn(NamedTuple):
    """New points, and of each a fitted one like it."""

    points: np.ndarray
    """(n, n_dimensions), float64."""
    donors: np.ndarray
    """Row of a fitted point that is drawn from those of the same component, (n,)."""


class Density:
    """Gaussian mixture p(y) = sum_k pi_k N(y; m_k, S_k).

    Of 1, 2, 4, ..., 64 components, with and without covariances, it has those under which points set aside are most
    probable; more are not tried once that falls. What goes along with a point (its batch, say) is taken from a donor
    among the points of the same component, so that what depends on y in the data does so among draws.
    """

    def __init__(self, points: np.ndarray, rng: np.random.Generator) -> None:
        seed = int(rng.integers(2**31))
        some = rng.permutation(points)[:MOST_POINTS] if len(points) > 1 else np.repeat(points, 2, axis=0)
        mixture = _best(some, seed)
        self.weights, self.means = mixture.weights_ / mixture.weights_.sum(), mixture.means_
        covariances = mixture.covariances_
        self._factors = np.linalg.cholesky(
            covariances if covariances.ndim == 3 else covariances[:, :, None] * np.eye(covariances.shape[1])
        )
        self._member = _draw_components(mixture, points, rng)

    def draw(self, n: int, rng: np.random.Generator) -> Drawn:
        """Draw `n` points."""
        component = rng.choice(len(self.weights), n, p=self.weights)
        noise = rng.normal(size=(n, self.means.shape[1]))
        points, donors = self.means[component], np.empty(n, np.int64)
        for k in np.unique(component):
            mine = component == k
            points[mine] += noise[mine] @ self._factors[k].T
            members = np.flatnonzero(self._member == k)
            donors[mine] = rng.choice(members if len(members) else len(self._member), mine.sum())
        return Drawn(points, donors)


def _best(points: np.ndarray, seed: int) -> GaussianMixture:
    """Mixture of the number and kind of components that held-out points prefer, fitted to all points."""
    n = len(points)
    if n < 2 * HELD_OUT:
        return _fitted(points, "diag", 1, seed)
    aside, others = points[: n // HELD_OUT], points[n // HELD_OUT :]
    tried = [c for kind in KINDS for c in _tried(others, aside, kind, seed)]
    _, kind, k = max(tried, key=lambda c: c[0])
    return _fitted(points, kind, k, seed)


def _tried(points: np.ndarray, aside: np.ndarray, kind: Kind, seed: int) -> Iterator[tuple[float, Kind, int]]:
    """Yield the score of points set aside with the kind and number of components, until it falls."""
    needed = POINTS_PER_DIMENSION * (points.shape[1] if kind == "full" else 1)
    last = -np.inf
    for k in COMPONENTS:
        if k * needed > len(points) and (k, kind) != (1, "diag"):
            return
        score = _fitted(points, kind, k, seed).score(aside)
        yield score, kind, k
        if score < last:
            return
        last = score


def _fitted(points: np.ndarray, kind: Kind, k: int, seed: int) -> GaussianMixture:
    mixture = GaussianMixture(k, covariance_type=kind, reg_covar=FLOOR, random_state=seed)
    with warnings.catch_warnings():  # one that has not converged is a density too, and judged as it is
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.fit(points)


def _draw_components(mixture: GaussianMixture, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One component for each point, by its responsibilities."""
    found = []
    for start in range(0, len(points), CHUNK):
        responsibility = mixture.predict_proba(points[start : start + CHUNK])
        below = responsibility.cumsum(1) < rng.random((len(responsibility), 1))
        found.append(below[:, :-1].sum(1))
    return np.concatenate(found)
