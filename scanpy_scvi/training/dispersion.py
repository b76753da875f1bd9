"""Dispersions of a fit of few cells, brought to where they belong."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from ..modules.likelihoods import NegativeBinomial, formula
from .batches import minibatches

if TYPE_CHECKING:
    from ..modules.cells import Cells
    from ..modules.vae import VAE
    from .batches import CellTable
    from .resident import ResidentTable

MOST_CELLS = 1000
"""Training cells up to which dispersions are settled; with more, the steps of a fit suffice."""
MOST_ENTRIES = 4_000_000
"""Cells x genes that are looked at."""
CHUNK = 512
SPREAD = 1.0
"""Standard deviation of the normal prior of a log factor, which decides where a gene has hardly a count."""
FARTHEST = 6.0
HALVINGS = 12


def can_settle(model: VAE, rows: np.ndarray) -> bool:
    """Whether there are so few cells that it is worth it, and dispersions that are read as they are."""
    return type(model.likelihood) is NegativeBinomial and 2 <= len(rows) <= MOST_CELLS


@torch.no_grad()
def settle_dispersion(model: VAE, table: CellTable | ResidentTable, rows: np.ndarray, device: torch.device) -> None:
    r"""Multiply each gene's theta by the factor under which its counts are most probable.

    At one draw of z for each cell of `rows`, all else staying as it is, this is the step of coordinate ascent of the
    bound. Adam moves a log theta by hundredths, and a fit of few cells has a hundred steps before its bound is best.
    The model is left in evaluation mode.
    """
    likelihood = cast("NegativeBinomial", model.likelihood)
    n_genes = table.take(rows[:2]).counts.n_genes
    most = max(2, MOST_ENTRIES // n_genes)
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, most).astype(np.int64))] if len(rows) > most else rows
    model.eval()
    parts = [_decoded(model, likelihood, table.take(part).to(device)) for part in minibatches(rows, CHUNK)]
    low = torch.full((n_genes,), -FARTHEST, dtype=parts[0][0].dtype, device=device)
    high = -low
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        slope = sum(_slope(*part, middle) for part in parts) - middle / SPREAD**2
        low, high = torch.where(slope > 0, middle, low), torch.where(slope > 0, high, middle)
    likelihood.shift_log_theta((low + high) / 2)


def _decoded(model: VAE, likelihood: NegativeBinomial, cells: Cells) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Counts, log means and log theta at a draw of z, (n, n_genes)."""
    posterior = model.encode(cells)
    output, log_library = model.decode(posterior.sample(), cells), model.library(cells).log_library
    log_mu = formula.log_means(output.params, log_library)
    x = torch.zeros_like(log_mu)
    x[cells.counts.cell_of_entry(), cells.counts.indices.long()] = cells.counts.data.to(x.dtype)
    return x, log_mu, likelihood.log_theta(output, cells)


def _slope(x: torch.Tensor, log_mu: torch.Tensor, log_theta: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Derivative of the log-likelihood of each gene in the logarithm of the factor, (n_genes,)."""
    t = log_theta + shift
    theta = t.exp()
    log_share = -torch.nn.functional.softplus(log_mu - t)  # of theta in theta + mu
    slope = theta * (log_share - torch.expm1(log_share)) - x * log_share.exp()
    seen = x > 0
    of_seen = theta.expand_as(x)[seen]
    slope[seen] += of_seen * (torch.digamma(x[seen] + of_seen) - torch.digamma(of_seen))
    return slope.sum(0)
