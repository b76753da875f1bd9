"""The evidence bound of cells."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.distributions import Normal

from ..modules.encoders.base import LatentPosterior
from ..modules.libraries import LogNormalLibrary
from ..training.in_turn import in_turn
from ..training.random import seeded
from .laplace import Laplace, laplace

if TYPE_CHECKING:
    import numpy as np

    from ..modules.cells import Cells
    from ..modules.vae import VAE
    from ..training.batches import CellTable

CHUNK = 512


class HeldOutBound(NamedTuple):
    """Per-cell bounds, each (n_cells,), nats."""

    elbo: np.ndarray
    """Evidence lower bound, averaged over the draws."""
    log_likelihood: np.ndarray
    """Importance-weighted estimate of log p(x), a tighter bound (Burda 2016, arXiv 1509.00519)."""


@torch.no_grad()
def held_out_bound(
    model: VAE, table: CellTable, *, n_samples: int = 100, random_state: int = 0, device: torch.device
) -> HeldOutBound:
    """ELBO and importance-weighted log-likelihood of cells.

    log p(x) >= log (1/K) sum_k p(x | z_k, l_k) p(z_k) p(l_k) / [q(z_k | x) q(l_k | x)], with K = `n_samples` draws
    from q. Where there is no encoder, q is normal about the mode (:class:`.Laplace`). Where an encoder gives points,
    there is no q, and both are log p(x, z) at the point: a joint density, which is no bound.
    """
    model = model.to(device).eval()
    elbo, weighted = [], []
    with seeded(random_state, device):
        for part in in_turn(table, CHUNK):
            cells = part.cells.to(device)
            posterior = _proposal(model, cells)
            n_draws = 1 if isinstance(posterior, LatentPosterior) and posterior.var is None else n_samples
            log_weights = torch.stack([_log_weight(model, cells, posterior) for _ in range(n_draws)]).cpu().double()
            elbo.append(log_weights.mean(0))
            weighted.append(torch.logsumexp(log_weights, 0) - math.log(n_draws))
    return HeldOutBound(torch.cat(elbo).numpy(), torch.cat(weighted).numpy())


@torch.no_grad()
def log_density(model: VAE, table: CellTable, z: np.ndarray, *, device: torch.device) -> np.ndarray:
    """log p(x | z, s) of cells at latent states `z` and the mean of their library, (n_cells,), float64."""
    model = model.to(device).eval()
    found = []
    for rows, there in in_turn(table, CHUNK):
        cells = there.to(device)
        output = model.decode(torch.from_numpy(z[rows]).to(device), cells)
        found.append(-model.likelihood.nll(output, model.library.mean(cells), cells).cpu().double())
    return torch.cat(found).numpy()


def _proposal(model: VAE, cells: Cells) -> LatentPosterior | Laplace:
    """q(z | x)."""
    posterior = model.encode(cells)
    return posterior if model.encoder.representations() is None else laplace(model, cells, posterior.mean)


def _log_weight(model: VAE, cells: Cells, posterior: LatentPosterior | Laplace) -> torch.Tensor:
    """log of p(x, z, l) / q(z, l | x) at one draw, (n,)."""
    z = posterior.sample()
    log_library, library_ratio = _draw_library(model, cells)
    nll = model.likelihood.nll(model.decode(z, cells), log_library, cells)
    return -nll + model.prior.log_prob(z, cells) - posterior.log_prob(z) + library_ratio


def _draw_library(model: VAE, cells: Cells) -> tuple[torch.Tensor, torch.Tensor]:
    """A draw of log l and log p(l) - log q(l) there."""
    library = model.library
    if not isinstance(library, LogNormalLibrary):
        log_library = library.mean(cells)
        return log_library, torch.zeros_like(log_library)
    m, v = library.posterior(cells)
    q, p = Normal(m, v.sqrt()), Normal(library.prior_mean[cells.batch], library.prior_var[cells.batch].sqrt())
    log_library = q.sample()
    return log_library, p.log_prob(log_library) - q.log_prob(log_library)
