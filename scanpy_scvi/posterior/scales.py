"""Draws of the proportions rho for groups of cells."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ..modules.precision import reduced_precision
from ..training.batches import CellTable, minibatches
from ..training.random import seeded
from .latent import encode, take

if TYPE_CHECKING:
    from ..modules.vae import VAE

CHUNK = 512


class Draws(NamedTuple):
    """Which cell each draw is of, and what it is decoded in."""

    rows: np.ndarray
    """Cells, with repeats, (n_draws,)."""
    batch: np.ndarray | None
    """Batch codes to decode in, (n_draws,), rising; None for each cell's own."""
    z: np.ndarray | None = None
    """Latent states, (n_draws, n_latent); None where they are still to be drawn from the cells' posteriors."""

    def first(self, n: int) -> Draws:
        """The first `n` draws."""
        batch, z = (None if field is None else field[:n] for field in (self.batch, self.z))
        return Draws(self.rows[:n], batch, z)


def plan_draws(rows: np.ndarray, n_draws: int, batches: np.ndarray | None, rng: np.random.Generator) -> Draws:
    """Choose `n_draws` cells among `rows`, with replacement, and give every batch of `batches` an equal share of them.

    The cells are chosen before anything is decoded: a draw is of a uniformly chosen cell either way, and the cost does
    not grow with the group. Where shares are not whole, the first batches get one draw more.
    """
    batch = None if batches is None else np.sort(np.resize(batches, n_draws))
    return Draws(rng.choice(rows, n_draws), batch)


def pair_draws(first: Draws, second: Draws, allowed: np.ndarray) -> np.ndarray:
    """Partner for each draw of `first`: one of the `allowed` draws of `second` that is decoded in the same batch.

    The allowed draws of a batch are used in turn, and again from the first where there are fewer than are needed.

    Parameters
    ----------
    first, second
        What is compared.
    allowed
        Which draws of `second` may be used, bool; in every batch of `first` there must be one.
    """
    if first.batch is None or second.batch is None:
        return np.resize(np.flatnonzero(allowed), len(first.rows))
    partner = np.empty(len(first.rows), np.int64)
    for batch in np.unique(first.batch):
        mine = first.batch == batch
        partner[mine] = np.resize(np.flatnonzero(allowed & (second.batch == batch)), mine.sum())
    return partner


@torch.no_grad()
def draw_scales(
    model: VAE,
    table: CellTable,
    draws: Draws,
    *,
    random_state: int,
    device: torch.device,
    out: np.ndarray | None = None,
    of_counts: bool = False,
) -> np.ndarray:
    """One draw of rho for each entry of `draws`, (n_genes, n_draws), float32; in the memory of `out`, where given.

    rho is decoded at a draw of z from its cell's posterior, or at the z of `draws`. Zero inflation never enters, unless
    the expected shares `of_counts` are asked for. The product over all genes is in bfloat16 where that is faster, as in
    the fit.
    """
    model = model.to(device).eval()
    scales = torch.empty(table.n_genes, len(draws.rows)) if out is None else torch.from_numpy(out)
    with seeded(random_state, device), reduced_precision(allowed=True):
        z = _latent(model, table, draws.rows, device) if draws.z is None else torch.from_numpy(draws.z).to(device)
        for part in minibatches(np.arange(len(draws.rows)), CHUNK):
            cells = table.take(draws.rows[part], counts=False).to(device)
            if draws.batch is not None:
                cells = replace(cells, batch=torch.from_numpy(draws.batch[part]).to(device))
            output = model.decode(z[part], cells)
            rho = model.likelihood.expected_shares(output) if of_counts else model.likelihood.proportions(output)
            _check_finite(rho, draws.rows[part])
            scales[:, int(part[0]) : int(part[-1]) + 1] = rho.T
    return scales.numpy()


def _latent(model: VAE, table: CellTable, rows: np.ndarray, device: torch.device) -> torch.Tensor:
    """A draw of z for each of `rows`, of which each is encoded once, however often it is drawn."""
    cells, positions = np.unique(rows, return_inverse=True)
    return take(encode(model, table, cells, device=device), positions).sample()


def _check_finite(rho: torch.Tensor, rows: np.ndarray) -> None:
    """Raise a FloatingPointError for a row that is not finite: then no entry of it is, since the softmax sums it."""
    finite = torch.isfinite(rho[:, 0])
    if not finite.all():
        msg = (
            f"The model gives no finite proportions for cell number {rows[int((~finite).nonzero()[0])]}. Look at its "
            "covariates and counts: they may lie far outside of what the model was fitted to."
        )
        raise FloatingPointError(msg)
