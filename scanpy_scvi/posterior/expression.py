"""Normalized (denoised) expression."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..numerics.negative_binomial import root_mean
from ..training.in_turn import in_turn
from ..training.random import seeded

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from ..modules.cells import Cells
    from ..modules.decoders.base import DecoderOutput
    from ..modules.vae import VAE
    from ..training.batches import CellTable

CHUNK = 512


@dataclass(frozen=True)
class ExpressionRequest:
    """Which normalized expression is asked for."""

    batch_weights: np.ndarray | None
    """Weight of each batch in the average over batches, summing to one; None decodes each cell in its own batch."""
    library_size: float | None = 1e4
    """Total that the proportions are scaled to; None takes the model's own library size of each cell."""
    n_samples: int | None = None
    """Draws of z to average over; None decodes the posterior mean."""
    random_state: int = 0
    roots: bool = False
    """Whether squares of expected square roots of counts are asked for, rather than expected counts."""


@torch.no_grad()
def normalized_expression(
    model: VAE, table: CellTable, request: ExpressionRequest, *, genes: np.ndarray | None, device: torch.device
) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """Yield (rows, values) for chunks of cells: rho times the library size, averaged over batches and draws.

    It holds torch's random state until it is used up or closed.

    With roots, the square of the average of E sqrt(x), for counts x with that mean and the model's dispersion.

    Parameters
    ----------
    model
        A fitted model.
    table
        The cells.
    request
        What is asked for.
    genes
        Positions of the genes to return; None for all modelled genes.
    device
        Where to compute.
    """
    model = model.to(device).eval()
    with seeded(request.random_state, device), closing(in_turn(table, CHUNK)) as parts:
        for rows, there in parts:
            cells = there.to(device)
            scale = model.library.mean(cells).exp()[:, None] if request.library_size is None else request.library_size
            average = _average(model, cells, request, scale)
            average = average if genes is None else average[:, torch.from_numpy(genes).to(device)]
            yield rows, (average.square() if request.roots else average * scale).cpu().numpy()


def _average(model: VAE, cells: Cells, request: ExpressionRequest, scale: torch.Tensor | float) -> torch.Tensor:
    """Proportions rho, or expected roots of counts, averaged over batches and draws of z, (n, n_genes)."""
    posterior = model.encode(cells)
    draws = [posterior.mean] if request.n_samples is None else (posterior.sample() for _ in range(request.n_samples))
    n_draws = request.n_samples or 1
    total: torch.Tensor | None = None
    for z in draws:
        for weight, batch in _batches(cells, request.batch_weights):
            there = replace(cells, batch=batch)
            output = model.decode(z, there)
            values = model.likelihood.proportions(output)
            values = _expected_roots(model, output, there, values * scale) if request.roots else values
            values *= weight / n_draws
            total = values if total is None else total.add_(values)
    if total is None:
        msg = f"n_samples is {request.n_samples}, but must be positive."
        raise ValueError(msg)
    return total


def _expected_roots(model: VAE, output: DecoderOutput, cells: Cells, mu: torch.Tensor) -> torch.Tensor:
    """E sqrt(x) of counts with the means `mu`, (n, n_genes)."""
    log_theta = model.likelihood.log_theta(output, cells)
    log_theta = mu.new_full((1, 1), torch.inf) if log_theta is None else log_theta
    roots = root_mean(mu.log().cpu().numpy(), log_theta.cpu().numpy())
    return torch.from_numpy(roots).to(mu.device)


def proportions_at(model: VAE, z: torch.Tensor, cells: Cells, batch_weights: np.ndarray | None) -> torch.Tensor:
    """Proportions rho(z, b) averaged over batches b, with the other covariates of `cells`, (n, n_genes)."""
    weighted = (
        model.likelihood.proportions(model.decode(z, replace(cells, batch=batch))) * weight
        for weight, batch in _batches(cells, batch_weights)
    )
    total = next(weighted)
    for rho in weighted:
        total += rho
    return total


def _batches(cells: Cells, weights: np.ndarray | None) -> Iterator[tuple[float, torch.Tensor]]:
    """Batch codes to decode with, and their weights."""
    if weights is None:
        yield 1.0, cells.batch
        return
    for code in np.flatnonzero(weights):
        yield float(weights[code]), torch.full_like(cells.batch, int(code))
