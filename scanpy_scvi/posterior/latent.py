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
    var: np.ndarray | None
    """None where the encoder gives points."""

    def spread(self) -> np.ndarray:
        """The variance, zero for points."""
        return np.zeros_like(self.mean) if self.var is None else self.var


@torch.no_grad()
def encode(model: VAE, table: CellTable, rows: np.ndarray, *, device: torch.device) -> LatentPosterior:
    """Posteriors of z of the cells `rows`, encoded in chunks; deterministic."""
    chunks = [model.encode(table.take(rows[part]).to(device)) for part in minibatches(np.arange(len(rows)), CHUNK)]
    variances = [chunk.var for chunk in chunks if chunk.var is not None]
    return LatentPosterior(torch.cat([chunk.mean for chunk in chunks]), torch.cat(variances) if variances else None)


def take(posterior: LatentPosterior, positions: np.ndarray) -> LatentPosterior:
    """Posteriors of some of the cells, with repeats."""
    chosen = torch.from_numpy(positions).to(posterior.mean.device)
    return LatentPosterior(posterior.mean[chosen], None if posterior.var is None else posterior.var[chosen])


def latent_moments(model: VAE, table: CellTable, *, device: torch.device) -> LatentMoments:
    """Encode all cells in chunks; deterministic."""
    mean, var = encode(model.to(device).eval(), table, np.arange(table.n_cells), device=device)
    return LatentMoments(mean.cpu().numpy(), None if var is None else var.cpu().numpy())


@torch.no_grad()
def library_moments(model: VAE, table: CellTable, *, device: torch.device) -> tuple[np.ndarray, np.ndarray] | None:
    """Posterior mean and variance of the log library of all cells, each (n_cells,); None where it is not latent."""
    library = model.to(device).eval().library
    if not isinstance(library, LogNormalLibrary):
        return None
    chunks = [library.posterior(table.take(rows).to(device)) for rows in minibatches(np.arange(table.n_cells), CHUNK)]
    mean, var = (torch.cat(parts).cpu().numpy() for parts in zip(*chunks, strict=True))
    return mean, var
