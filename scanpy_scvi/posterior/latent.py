"""Posterior of z for every cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ..modules.encoders.base import LatentPosterior
from ..modules.libraries import LogNormalLibrary
from ..training.batches import CellTable, minibatches

if TYPE_CHECKING:
    from ..modules.vae import VAE

CHUNK = 2048


class LatentMoments(NamedTuple):
    """Posterior mean and variance of z, each cells x n_latent, float32."""

    mean: np.ndarray
    var: np.ndarray


@torch.no_grad()
def encode(model: VAE, table: CellTable, rows: np.ndarray, *, device: torch.device) -> LatentPosterior:
    """Posteriors of z of the cells `rows`, encoded in chunks; deterministic."""
    chunks = [model.encode(table.take(rows[part]).to(device)) for part in minibatches(np.arange(len(rows)), CHUNK)]
    mean, var = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    return LatentPosterior(mean, var)


def take(posterior: LatentPosterior, positions: np.ndarray) -> LatentPosterior:
    """Posteriors of some of the cells, with repeats."""
    chosen = torch.from_numpy(positions).to(posterior.mean.device)
    return LatentPosterior(posterior.mean[chosen], posterior.var[chosen])


def latent_moments(model: VAE, table: CellTable, *, device: torch.device) -> LatentMoments:
    """Encode all cells in chunks; deterministic."""
    mean, var = encode(model.to(device).eval(), table, np.arange(table.n_cells), device=device)
    return LatentMoments(mean.cpu().numpy(), var.cpu().numpy())


@torch.no_grad()
def library_moments(model: VAE, table: CellTable, *, device: torch.device) -> tuple[np.ndarray, np.ndarray] | None:
    """Posterior mean and variance of the log library of all cells, each (n_cells,); None where it is not latent."""
    library = model.to(device).eval().library
    if not isinstance(library, LogNormalLibrary):
        return None
    chunks = [library.posterior(table.take(rows).to(device)) for rows in minibatches(np.arange(table.n_cells), CHUNK)]
    mean, var = (torch.cat(parts).cpu().numpy() for parts in zip(*chunks, strict=True))
    return mean, var
