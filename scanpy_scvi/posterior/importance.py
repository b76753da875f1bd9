"""Draws of z that follow the model's own posterior, not only the encoder's approximation to it.

Draws come from the encoder, z ~ q_A(z) = 1/|A| sum_a q(z | x_a), but what is meant is the model's posterior,
p_A(z) = 1/|A| sum_a p(z | x_a) with p(z | x_a) = p(z) p(x_a | z) / p(x_a). Each draw gets the weight

    w(z) = p_A(z) / q_A(z),

weights are truncated from above at mean(w) sqrt(n) (Ionides 2008, J Comput Graph Stat 17:295), and as many draws are
taken again in proportion to them. Boyeau et al. 2023, PNAS 120:e2209124120.

log p(x_a) is estimated with the draws of that cell among others, so that a lucky draw cannot outweigh all cells.

Both sums are over the draw's own cell and the few others that are likeliest to have given z, since each term of the
numerator is a decoding. A latent library is held at its posterior mean.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ..training.batches import CellTable, minibatches
from ..training.random import seeded
from ..training.sources import keep
from .latent import encode, take
from .scales import Draws

if TYPE_CHECKING:
    from ..modules.cells import Cells
    from ..modules.encoders.base import LatentPosterior
    from ..modules.vae import VAE

MOST_CELLS = 1000
"""Most cells of a group whose posteriors make up the mixture."""
NEAREST = 8
"""Terms of the numerator of a weight."""
EVIDENCE_SAMPLES = 100
"""Draws for the estimate of log p(x) of a cell."""
CHUNK = 512


class Reweighted(NamedTuple):
    """Draws that follow the model's posterior."""

    draws: Draws
    n_effective: float
    """(sum w)^2 / sum w^2: how many draws of equal weight the weighted ones are worth."""


@torch.no_grad()
def reweight(model: VAE, table: CellTable, draws: Draws, *, random_state: int, device: torch.device) -> Reweighted:
    """Draw z for every entry of `draws`, weight, and draw again by weight.

    Parameters
    ----------
    model
        A fitted model.
    table
        All cells.
    draws
        Cells to draw from, at most a thousand different ones, and the batches to decode in.
    random_state
        Seed.
    device
        Where to compute.
    """
    model = model.to(device).eval()
    cells, own = np.unique(draws.rows, return_inverse=True)
    table = replace(table, counts=keep(table.counts, cells))  # which are read a hundred times
    with seeded(random_state, device):
        q = encode(model, table, cells, device=device)
        if q.var is None:
            msg = (
                "The fit gives each cell one latent state without a variance, so there are no draws to weight. Use "
                "`weights='uniform'`."
            )
            raise ValueError(msg)
        z = take(q, own).sample()
        evidence = _log_evidence(model, table, cells, q, (z, own))
        weights = _truncated(_log_weights(model, table, cells, q, (z, own), evidence))
    chosen = _systematic(weights, np.random.default_rng(random_state))
    again = Draws(draws.rows[chosen], draws.batch, z.cpu().numpy()[chosen])
    return Reweighted(again, float(weights.sum() ** 2 / (weights**2).sum()))


def _log_joint(model: VAE, cells: Cells, z: torch.Tensor) -> torch.Tensor:
    """log p(z) + log p(x | z), (n,), float64, on the CPU: not every device has float64."""
    nll = model.likelihood.nll(model.decode(z, cells), model.library.mean(cells), cells)
    return model.prior.log_prob(z, cells).cpu().double() - nll.cpu().double()


def _log_ratio(model: VAE, cells: Cells, q: LatentPosterior, z: torch.Tensor) -> torch.Tensor:
    """log of p(z) p(x | z) / q(z | x), (n,), float64."""
    return _log_joint(model, cells, z) - q.log_prob(z).cpu().double()


def _log_evidence(
    model: VAE, table: CellTable, cells: np.ndarray, q: LatentPosterior, drawn: tuple[torch.Tensor, np.ndarray]
) -> torch.Tensor:
    """Importance-weighted estimate of log p(x) for each cell, (n,), float64.

    `q` are the posteriors of the cells, `drawn` are draws and the cell of each.
    """
    z, own = drawn
    total = np.empty(len(cells))
    for part in minibatches(np.arange(len(cells)), CHUNK):
        x, posterior = table.take(cells[part]).to(z.device), take(q, part)
        terms = [_log_ratio(model, x, posterior, posterior.sample()) for _ in range(EVIDENCE_SAMPLES)]
        total[part] = torch.logsumexp(torch.stack(terms), 0).numpy()
    for part in minibatches(np.arange(len(z)), CHUNK):
        x = table.take(cells[own[part]]).to(z.device)
        np.logaddexp.at(total, own[part], _log_ratio(model, x, take(q, own[part]), z[part]).numpy())
    n = EVIDENCE_SAMPLES + np.bincount(own, minlength=len(cells))
    return torch.from_numpy(total - np.log(n))


def _log_weights(
    model: VAE,
    table: CellTable,
    cells: np.ndarray,
    q: LatentPosterior,
    drawn: tuple[torch.Tensor, np.ndarray],
    evidence: torch.Tensor,
) -> np.ndarray:
    """log of p_A(z) / q_A(z) for each z, (n_draws,); `q` and `evidence` are of the cells, `drawn` z and its cell."""
    z, own = drawn
    n_terms = min(NEAREST, len(cells))
    out = []
    for part in minibatches(np.arange(len(z)), CHUNK):
        log_q = _log_densities(q, z[part])
        preferred = log_q.clone()
        preferred[torch.arange(len(part)), torch.from_numpy(own[part])] = math.inf
        chosen = preferred.topk(n_terms, dim=1).indices
        terms = []
        for anchor in chosen.T:
            x = table.take(cells[anchor.numpy()]).to(z.device)
            terms.append(_log_joint(model, x, z[part]) - evidence[anchor])
        out.append(torch.logsumexp(torch.stack(terms), 0) - torch.logsumexp(log_q.gather(1, chosen), 1))
    return torch.cat(out).numpy()


def _log_densities(q: LatentPosterior, z: torch.Tensor) -> torch.Tensor:
    """log q(z_i | x_a), (n_draws, n_cells), float64."""
    var = torch.zeros_like(q.mean) if q.var is None else q.var
    mean, precision, z = q.mean.cpu().double(), 1 / var.cpu().double(), z.cpu().double()
    squared = z.square() @ precision.T - 2 * z @ (mean * precision).T + (mean.square() * precision).sum(1)
    return -0.5 * (squared + (2 * math.pi / precision).log().sum(1))


def _truncated(log_weights: np.ndarray) -> np.ndarray:
    """Weights with mean 1, of which none was above the mean times the square root of their number."""
    if not np.isfinite(log_weights).all():
        msg = "The model gives no finite likelihood for some cells. Look at their covariates, or leave `weights` out."
        raise FloatingPointError(msg)
    weights = np.exp(log_weights - log_weights.max())
    weights = np.minimum(weights, math.sqrt(len(weights)) * weights.mean())
    return weights / weights.mean()


def _systematic(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many positions as there are weights, each about as often as its weight asks for, in random order."""
    n = len(weights)
    edges = np.cumsum(weights) / weights.sum()
    edges[-1] = 1.0
    return rng.permutation(np.searchsorted(edges, (np.arange(n) + rng.random()) / n, side="right").clip(max=n - 1))
