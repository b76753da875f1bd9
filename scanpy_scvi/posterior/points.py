"""How good latent states are that were found by optimisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..training.in_turn import in_turn
from ..training.represent import CHUNK, improved, price

if TYPE_CHECKING:
    from ..modules.vae import VAE
    from ..training.batches import CellTable

STEPS = 20


def shortfall(model: VAE, table: CellTable, *, device: torch.device) -> np.ndarray:
    """By how many nats of log p(x, z) each cell's own latent state falls short of the best one near it, (n_cells,).

    For models without an encoder, whose states of a fit are each at a maximum, found by optimisation.
    """
    own = model.to(device).eval().encoder.representations()
    if own is None:
        msg = "The model has an encoder, which gives the cells their latent states."
        raise TypeError(msg)
    start, rows = own.detach(), np.arange(table.n_cells)
    best = improved(model, table, rows, start, device, n_steps=STEPS).z
    gaps = []
    with torch.no_grad():
        for part, there in in_turn(table, CHUNK):
            cells = there.to(device)
            before, after = (price(model, cells, z[torch.from_numpy(part).to(device)]) for z in (start, best))
            gaps.append((before - after).cpu())
    return torch.cat(gaps).numpy()
