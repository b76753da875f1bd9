"""Latent dimensions that are independent over cells: FastICA, in the form of a sparse rotation.

FastICA knows no perturbations. It looks for directions in which cells are least normal, which those are that a few
perturbations move; but so are those of cell types, cycle and batches. References: Hyvarinen 1999, IEEE Transactions on
Neural Networks 10:626.
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning

from .sparse_rotation import Rotation, find_centroids, rotation_of

N_STARTS = 5
MAX_CELLS = 20_000
"""Cells that the components are found from."""
MAX_STEPS, TOLERANCE, AGREE = 1000, 1e-6, 1e-3
NORMAL_LOG_COSH = 0.3745672075
"""E log cosh of a standard normal number."""


def ica_rotation(
    z: np.ndarray,
    groups: np.ndarray,
    *,
    control: int | None = None,
    n_starts: int = N_STARTS,
    random_state: int | np.random.Generator = 0,
) -> Rotation:
    """Turn a latent space to independent components of all its cells, in units of the spread within perturbations.

    Parameters and result are those of :func:`~scanpy_scvi.numerics.sparse_rotation.sparse_rotation`; of the starts,
    that with the largest sum of squared deviations of E log cosh from a normal's is kept. Columns of the matrix have
    variance one within perturbations, but need not be uncorrelated there.
    """
    centroids = find_centroids(z, groups, control)
    white, rng = centroids.white, np.random.default_rng(random_state)
    rows = np.flatnonzero(np.asarray(groups) >= 0)
    if len(rows) > MAX_CELLS:
        rows = np.sort(rng.choice(rows, MAX_CELLS, replace=False))
    cells = (np.asarray(z)[rows] - centroids.center) @ white.matrix @ white.kept
    found = [_components(cells, int(rng.integers(2**31))) for _ in range(n_starts)]
    contrasts = np.array([contrast for contrast, _ in found])
    components = found[int(contrasts.argmax())][1]
    matrix = white.matrix @ white.kept @ components.T
    matrix /= np.sqrt(np.einsum("ij,ik,kj->j", matrix, centroids.moments.within, matrix))
    n_agree = int((contrasts >= contrasts.max() * (1 - AGREE)).sum())
    matrix = np.hstack([matrix, white.matrix @ white.collapsed])
    quality = float(contrasts.max()), n_agree
    return rotation_of(centroids, matrix, centroids.center, n_moved=len(components), quality=quality)


def _components(cells: np.ndarray, seed: int) -> tuple[float, np.ndarray]:
    """Components of one start, (p, p), and how far from normal they are."""
    ica = FastICA(whiten="unit-variance", fun="logcosh", max_iter=MAX_STEPS, tol=TOLERANCE, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of several starts the best is kept, wherever it ended
        sources = ica.fit_transform(cells)
    log_cosh = np.logaddexp(sources, -sources) - np.log(2)
    return float(((log_cosh.mean(0) - NORMAL_LOG_COSH) ** 2).sum()), ica.components_
