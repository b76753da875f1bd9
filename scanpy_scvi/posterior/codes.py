"""Clusters from which hidden units are active: the code of a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ..modules.cells import Cells, Counts

if TYPE_CHECKING:
    from ..modules.cells import Dimensions
    from ..modules.vae import VAE

CHUNK = 8192
ACTIVE = 1e-6
"""Activity above which a unit counts as on."""


class Clusters(NamedTuple):
    """Codes that enough cells have."""

    codes: np.ndarray
    """Which units are on, (n_clusters, n_units), bool; that of the most cells first."""
    of_cells: np.ndarray
    """Cluster of each cell, (n_cells,), int64; -1 for cells with other codes."""


@torch.no_grad()
def hidden_codes(model: VAE, z: np.ndarray, *, batch: int) -> np.ndarray:
    """Which units of the decoder's last hidden layer are on at `z`, (n_cells, n_units), bool.

    All cells are decoded as cells of one batch, so that it does not enter their codes; other covariates are at their
    first category, or at zero.
    """
    model, dims = model.cpu().eval(), model.decoder.dims
    parts = [torch.from_numpy(z[start : start + CHUNK]) for start in range(0, len(z), CHUNK)]
    return np.concatenate([(model.decode(p, _plain(len(p), dims, batch)).hidden > ACTIVE).numpy() for p in parts])


def code_clusters(codes: np.ndarray, min_cells: int) -> Clusters:
    """Make a cluster of every code that `min_cells` cells have or more.

    "Binarised" hidden layers as clusters: Amodio et al. 2019, Nat Methods 16:1139.

    Examples
    --------
    >>> import numpy as np
    >>> codes = np.array([[True, False], [False, True], [False, True], [True, True]])
    >>> code_clusters(codes, min_cells=2).of_cells
    array([-1,  0,  0, -1])
    """
    unique, of_cells, n_cells = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(-n_cells, kind="stable")
    order = order[n_cells[order] >= min_cells]
    number = np.full(len(unique), -1)
    number[order] = np.arange(len(order))
    return Clusters(unique[order], number[of_cells.ravel()])


def clusters_of(codes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Number of each cell's code among known ones, (n_cells,), int64; -1 for others."""
    numbers = {code.tobytes(): k for k, code in enumerate(np.ascontiguousarray(known, bool))}
    return np.array([numbers.get(code.tobytes(), -1) for code in np.ascontiguousarray(codes, bool)], np.int64)


def _plain(n: int, dims: Dimensions, batch: int) -> Cells:
    """Cells without counts, of one batch."""
    zeros = torch.zeros(n, dtype=torch.int64)
    empty = Counts(torch.zeros(n + 1, dtype=torch.int64), zeros[:0].int(), torch.zeros(0), dims.n_genes)
    return Cells(
        counts=empty,
        log_total=torch.zeros(n),
        log_size_factor=torch.zeros(n),
        batch=zeros + batch,
        labels=zeros,
        categorical=zeros[:, None].expand(n, len(dims.n_categories)),
        continuous=torch.zeros(n, dims.n_continuous),
        index=torch.arange(n),
    )
