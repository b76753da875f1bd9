"""Densities of latent states and library sizes, fitted to a model's cells afterwards."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

if TYPE_CHECKING:
    from collections.abc import Iterator

COMPONENTS = (1, 2, 4, 8, 16, 32)
CELLS_PER_DIMENSION = 3
"""Cells for each component and dimension below which components are not divided further; a single component of fewer
cells has no covariances."""
MOST_CELLS = 20_000
"""Cells that a density is fitted to at most."""
FLOOR = 1e-4
"""Added to variances."""
CHUNK = 8192


class Drawn(NamedTuple):
    """New points, and of each a cell like it."""

    points: np.ndarray
    """(n, n_dimensions), float64."""
    donors: np.ndarray
    """Row of a fitted point that is drawn from those of the same component, (n,)."""


class Density:
    """Gaussian mixture p(y) = sum_k pi_k N(y; m_k, S_k), with the number of components that has the lowest BIC.

    The numbers tried are 1, 2, 4, ..., 32, up to the first that is worse than the one before it. What goes along with a
    point (its batch, say) is taken from a donor among the points that belong to the same component, so that what
    depends on y in the data does so among draws.
    """

    def __init__(self, points: np.ndarray, rng: np.random.Generator) -> None:
        seed = int(rng.integers(2**31))
        some = points if len(points) <= MOST_CELLS else rng.choice(points, MOST_CELLS, replace=False, shuffle=False)
        mixture = min(_candidates(some, seed), key=lambda pair: pair[0])[1]
        self.weights, self.means = mixture.weights_ / mixture.weights_.sum(), mixture.means_
        covariances = mixture.covariances_
        full = covariances if covariances.ndim == 3 else np.stack([np.diag(c) for c in covariances])
        self._factors = np.linalg.cholesky(full)
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


def _candidates(points: np.ndarray, seed: int) -> Iterator[tuple[float, GaussianMixture]]:
    """Yield mixtures with their BIC until it rises."""
    n, d = points.shape
    last = np.inf
    for k in COMPONENTS:
        enough = n >= CELLS_PER_DIMENSION * d * k
        if k > 1 and not enough:
            return
        mixture = GaussianMixture(k, covariance_type="full" if enough else "diag", reg_covar=FLOOR, random_state=seed)
        with warnings.catch_warnings():  # one that has not converged is still a density, judged by its BIC
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(points)
        bic = mixture.bic(points)
        yield bic, mixture
        if bic > last:
            return
        last = bic


def _draw_components(mixture: GaussianMixture, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One component for each point, by its responsibilities."""
    found = []
    for start in range(0, len(points), CHUNK):
        responsibility = mixture.predict_proba(points[start : start + CHUNK])
        below = responsibility.cumsum(1) < rng.random((len(responsibility), 1))
        found.append(below[:, :-1].sum(1))
    return np.concatenate(found)
