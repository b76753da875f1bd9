"""Draws of the proportions rho for groups of cells."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ..training.batches import CellTable, minibatches
from ..training.random import seeded

if TYPE_CHECKING:
    from ..modules.vae import VAE

CHUNK = 512


class Draws(NamedTuple):
    """Which cell each draw is of, and what it is decoded in."""

    rows: np.ndarray
    """Cells, with repeats, (n_draws,)."""
    batch: np.ndarray | None
    """Batch codes to decode in, (n_draws,); None for each cell's own."""


def plan_draws(rows: np.ndarray, n_draws: int, batches: np.ndarray | None, rng: np.random.Generator) -> Draws:
    """Choose `n_draws` cells among `rows`, with replacement, and give every batch of `batches` an equal share of them.

    The cells are chosen before anything is decoded: a draw is of a uniformly chosen cell either way, and the cost does
    not grow with the group. Where shares are not whole, the first batches get one draw more.
    """
    batch = None if batches is None else np.sort(np.resize(batches, n_draws))
    return Draws(rng.choice(rows, n_draws), batch)


@torch.no_grad()
def draw_scales(model: VAE, table: CellTable, draws: Draws, *, random_state: int, device: torch.device) -> np.ndarray:
    """One draw of rho for each entry of `draws`, (n_draws, n_genes), float32.

    rho is decoded at a draw of z from its cell's posterior; zero inflation never enters.
    """
    model = model.to(device).eval()
    out: np.ndarray | None = None
    with seeded(random_state, device):
        for part in minibatches(np.arange(len(draws.rows)), CHUNK):
            cells = table.take(draws.rows[part]).to(device)
            z = model.encode(cells).sample()
            if draws.batch is not None:
                cells = replace(cells, batch=torch.from_numpy(draws.batch[part]).to(device))
            rho = model.likelihood.proportions(model.decode(z, cells)).cpu().numpy()
            out = np.empty((len(draws.rows), rho.shape[1]), np.float32) if out is None else out
            out[part] = rho
    if out is None:
        msg = "No draws were asked for."
        raise ValueError(msg)
    return out
