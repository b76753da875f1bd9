"""What the directions of a latent space do to genes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .counterfactual import Decoding, decoded

if TYPE_CHECKING:
    import torch

    from ..modules.vae import VAE
    from ..training.batches import CellTable

STEP = 1.0
"""Distance from the cell's own state to either side, in standard deviations of the prior."""
MOST_CELLS = 500
"""Cells that the mean is taken over, at most."""
SMALLEST = 1e-30
"""Proportion below which a gene counts as silent."""


class Programs(NamedTuple):
    """What the latent dimensions do to genes, and how much there is of each."""

    slopes: np.ndarray
    """Mean over cells of [log rho_g(z + e_j) - log rho_g(z - e_j)] / 2, (n_genes, n_latent), float32."""
    proportions: np.ndarray
    """Mean over the same cells of rho_g(z), (n_genes,), float32."""


def latent_programs(
    model: VAE, table: CellTable, rows: np.ndarray, z: np.ndarray, *, random_state: int, device: torch.device
) -> Programs:
    """Move cells to either side of where they are.

    Parameters
    ----------
    model, table
        A fitted model, and all cells.
    rows
        Cells to average over; a sample of `MOST_CELLS` of more.
    z
        Latent states of all cells.
    random_state
        Seed of that sample.
    device
        Where to compute.
    """
    if len(rows) > MOST_CELLS:
        rows = np.sort(np.random.default_rng(random_state).choice(rows, MOST_CELLS, replace=False))
    slopes = np.zeros((table.n_genes, z.shape[1]))
    for j in range(z.shape[1]):
        for sign in (1.0, -1.0):
            moved = z[rows].copy()
            moved[:, j] += sign * STEP
            for _, rho in decoded(model, table, rows, moved, Decoding(1.0), device=device):
                slopes[:, j] += sign * np.log(np.maximum(rho, SMALLEST)).sum(0, dtype=np.float64)
    chunks = decoded(model, table, rows, z[rows], Decoding(1.0), device=device)
    proportions = sum(rho.sum(0, dtype=np.float64) for _, rho in chunks) / len(rows)
    return Programs((slopes / (2 * STEP * len(rows))).astype(np.float32), np.asarray(proportions, np.float32))
