"""Posterior of z for every cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ..modules.encoders.base import LatentPosterior
from ..modules.libraries import LogNormalLibrary
from ..training.in_turn import in_turn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..modules.vae import VAE
    from ..training.batches import CellTable

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
def encode(model: VAE, table: CellTable, rows: np.ndarray | None = None, *, device: torch.device) -> LatentPosterior:
    """Posteriors of z of all cells, or of the cells `rows`, encoded in chunks; deterministic."""
    n = table.n_cells if rows is None else len(rows)
    chunks = ((part.place, model.encode(part.cells.to(device))) for part in in_turn(table, CHUNK, rows))
    mean, var = _filled(n, chunks)
    assert mean is not None  # for the type checker
    return LatentPosterior(mean, var)


def _filled(
    n: int, chunks: Iterable[tuple[slice, tuple[torch.Tensor | None, torch.Tensor | None]]]
) -> list[torch.Tensor | None]:
    """Two columns of `n` rows from chunks of both, which are not held beside them; None where the chunks have None."""
    out: list[torch.Tensor | None] = []
    for place, chunk in chunks:
        out = out or [None if values is None else values.new_empty(n, *values.shape[1:]) for values in chunk]
        for column, values in zip(out, chunk, strict=True):
            if column is not None and values is not None:
                column[place] = values
    return out


def take(posterior: LatentPosterior, positions: np.ndarray) -> LatentPosterior:
    """Posteriors of some of the cells, with repeats."""
    chosen = torch.from_numpy(positions).to(posterior.mean.device)
    return LatentPosterior(posterior.mean[chosen], None if posterior.var is None else posterior.var[chosen])


def latent_moments(model: VAE, table: CellTable, *, device: torch.device) -> LatentMoments:
    """Encode all cells in chunks; deterministic."""
    mean, var = encode(model.to(device).eval(), table, device=device)
    return LatentMoments(mean.cpu().numpy(), None if var is None else var.cpu().numpy())


@torch.no_grad()
def library_moments(model: VAE, table: CellTable, *, device: torch.device) -> tuple[np.ndarray, np.ndarray] | None:
    """Posterior mean and variance of the log library of all cells, each (n_cells,); None where it is not latent."""
    library = model.to(device).eval().library
    if not isinstance(library, LogNormalLibrary):
        return None
    chunks = ((part.place, library.posterior(part.cells.to(device))) for part in in_turn(table, CHUNK))
    mean, var = (column.cpu().numpy() for column in _filled(table.n_cells, chunks) if column is not None)
    return mean, var
