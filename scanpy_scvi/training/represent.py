"""Latent states of cells by optimisation, with the rest of the model as it is."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..modules.encoders.base import LatentPosterior
from .in_turn import in_turn

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from ..modules.cells import Cells
    from ..modules.vae import VAE
    from .batches import CellTable
    from .resident import ResidentTable

CHUNK = 512
BETA1, BETA2 = 0.9, 0.99
SEARCH_STEPS, SEARCH_RATE = 10, 0.2
"""Steps from every start, before the best is taken."""
STEPS, RATE = 60, 0.2
"""Steps from there; the rate falls to zero."""
MOST_STARTS = 4
"""Components with the best means from which a cell is optimised."""


def represent(model: VAE, table: CellTable | ResidentTable, rows: np.ndarray, *, device: torch.device) -> torch.Tensor:
    """z = argmin -log p(x | z) - log p(z) of cells, (n, n_latent), for models without an encoder; deterministic.

    Every component mean of the prior (or zero, where it has no components) is tried; the best few are starts, of which
    after some steps the best is optimised further. Nothing but z moves.
    """
    model = model.to(device).eval()
    own = model.encoder.representations()
    if own is None:
        msg = "The model has an encoder, which gives the cells their latent states."
        raise TypeError(msg)
    found = []
    with frozen(model):
        for _, there in in_turn(table, CHUNK, rows):
            cells = there.to(device)
            found.append(optimised(model, cells, _best_start(model, cells, own.shape[1]), n_steps=STEPS, rate=RATE))
    return torch.cat(found)


class Placed(NamedTuple):
    """Latent states of some cells."""

    rows: torch.Tensor
    z: torch.Tensor


def improved(
    model: VAE,
    table: CellTable | ResidentTable,
    rows: np.ndarray,
    start: torch.Tensor,
    device: torch.device,
    *,
    n_steps: int,
) -> Placed:
    """Latent states of the cells `rows` after some steps from where they are in `start`, (n_all_cells, n_latent)."""
    found = []
    with frozen(model):
        for at, cells in in_turn(table, CHUNK, rows):
            z = start[torch.from_numpy(rows[at]).to(device)]
            found.append(optimised(model, cells.to(device), z, n_steps=n_steps, rate=RATE))
    return Placed(torch.from_numpy(rows).to(device), torch.cat(found))


@contextmanager
def frozen(model: VAE) -> Iterator[None]:
    """Run a block in which no weight of a model asks for a gradient."""
    asked = [p for p in model.parameters() if p.requires_grad]
    for p in asked:
        p.requires_grad = False
    try:
        with torch.inference_mode(mode=False), torch.enable_grad():
            yield
    finally:
        for p in asked:
            p.requires_grad = True


def price(model: VAE, cells: Cells, z: torch.Tensor) -> torch.Tensor:
    """-log p(x | z) - log p(z), (n,), nats."""
    nll = model.likelihood.nll(model.decode(z, cells), model.library.mean(cells), cells)
    return nll + model.prior.kl(LatentPosterior(z, None), z, cells)


def optimised(model: VAE, cells: Cells, start: torch.Tensor, *, n_steps: int, rate: float) -> torch.Tensor:
    """Best z of `n_steps` steps of Adam from `start`, at a rate that falls to zero; call it in :func:`frozen`."""
    z = start.detach().clone()
    first, second = torch.zeros_like(z), torch.zeros_like(z)
    best, lowest = z.clone(), torch.full((len(z),), torch.inf, device=z.device)
    for step in range(1, n_steps + 2):
        z.requires_grad_()
        loss = price(model, cells, z)
        (gradient,) = torch.autograd.grad(loss.sum(), z)
        with torch.no_grad():
            z = z.detach()
            better = loss < lowest
            best[better], lowest[better] = z[better], loss[better]
            first.lerp_(gradient, 1 - BETA1)
            second.lerp_(gradient.square(), 1 - BETA2)
            scale = (second / (1 - BETA2**step)).sqrt().add_(1e-6)
            z = z - rate * (1 - (step - 1) / n_steps) / (1 - BETA1**step) * first / scale
    return best


def _best_start(model: VAE, cells: Cells, n_latent: int) -> torch.Tensor:
    """Where each cell is best after a few steps from the best component means, (n, n_latent)."""
    centres = model.prior.centres(n_latent).to(cells.batch.device)
    if len(centres) == 1:
        return centres.expand(cells.n_cells, -1)
    with torch.no_grad():
        prices = torch.stack([price(model, cells, centre.expand(cells.n_cells, -1)) for centre in centres])
    order = prices.argsort(0)[:MOST_STARTS]
    tried = [optimised(model, cells, centres[k], n_steps=SEARCH_STEPS, rate=SEARCH_RATE) for k in order]
    with torch.no_grad():
        best = torch.stack([price(model, cells, z) for z in tried]).argmin(0)
    return torch.stack(tried)[best, torch.arange(cells.n_cells, device=best.device)]
