"""Posterior of z for every cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ..training.batches import CellTable, minibatches

if TYPE_CHECKING:
    from ..modules.vae import VAE

CHUNK = 2048


class LatentMoments(NamedTuple):
    """Posterior mean and variance of z, each cells x n_latent, float32."""

    mean: np.ndarray
    var: np.ndarray


@torch.no_grad()
def latent_moments(model: VAE, table: CellTable, *, device: torch.device) -> LatentMoments:
    """Encode all cells in chunks; deterministic."""
    model = model.to(device).eval()
    chunks = [model.encode(table.take(rows).to(device)) for rows in minibatches(np.arange(table.n_cells), CHUNK)]
    mean, var = (torch.cat(parts).cpu().numpy() for parts in zip(*chunks, strict=True))
    return LatentMoments(mean, var)
