"""Genes that have nothing to do with any other, as the decoder would have fitted them."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ..numerics.sparse import to_dense
from ..training.average import WeightAverage
from ..training.batches import CellTable, minibatches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..modules.vae import VAE
    from ..training.config import TrainingConfig

MOST_CELLS = 20_000
"""Cells that null genes are drawn for at most."""
LEAST_SHARE = 1e-9


class NullGenes(NamedTuple):
    """Heads of null genes on the decoder's last hidden layer: log rho = W h + b_s up to a constant of the cell."""

    weight: torch.Tensor
    """(n_hidden, n_null)."""
    bias: torch.Tensor
    """(n_batches, n_null)."""

    def log_expression(self, hidden: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        """W h + b, (n, n_null)."""
        return torch.addmm(self.bias[batch], hidden, self.weight)


class NullCounts(NamedTuple):
    """Counts of genes of constant proportion in each batch, and the law that they were drawn from."""

    rows: np.ndarray
    """Cells, (n,)."""
    counts: torch.Tensor
    """(n, n_null), float32."""
    share: torch.Tensor
    """(n_batches, n_null)."""
    theta: torch.Tensor
    """(n_null,); infinite for Poisson counts."""


def draw_null_counts(table: CellTable, genes: np.ndarray, n_null: int, rng: np.random.Generator) -> NullCounts:
    """Draw `n_null` copies of each gene, x ~ NB(l_n p_s, theta), where it would not depend on the cell's state.

    p_s is the gene's share of the counts of batch s, and theta has the moments of its counts about l_n p_s.
    """
    rows = np.sort(rng.permutation(table.n_cells)[:MOST_CELLS])
    some = table.take(rows)
    x = to_dense(some.counts.rows(), table.n_genes)[:, genes].astype(np.float64)
    library, batch = np.exp(some.log_total.numpy().astype(np.float64)), some.batch.numpy()
    n_batches = int(table.batch.max()) + 1
    total, depth = np.zeros((n_batches, len(genes))), np.zeros(n_batches)
    np.add.at(total, batch, x)
    np.add.at(depth, batch, library)
    pooled = total.sum(0) / depth.sum()
    share = np.maximum(np.where(depth[:, None] > 0, total / np.maximum(depth, 1)[:, None], pooled), LEAST_SHARE)
    mu = library[:, None] * share[batch]
    excess = ((x - mu) ** 2 - mu).sum(0)
    theta = np.where(excess > 0, (mu**2).sum(0) / np.where(excess > 0, excess, 1.0), np.inf)
    share, theta, mu = (np.tile(a, n_null) for a in (share, theta, mu))
    known = np.isfinite(theta)
    mu[:, known] = rng.gamma(theta[known], mu[:, known] / theta[known])
    counts = rng.poisson(mu).astype(np.float32)
    return NullCounts(rows, *(torch.from_numpy(a.astype(np.float32)) for a in (counts, share, theta)))


@torch.no_grad()
def fit_null_genes(
    model: VAE, table: CellTable, null: NullCounts, config: TrainingConfig, *, n_steps: int, device: torch.device
) -> NullGenes:
    """Fit a head to each null gene as the fit did to the others: same start, optimiser, minibatches and steps.

    The rest of the model stays as it is. Randomness is torch's own.
    """
    n_hidden, n_null = model.decoder.n_hidden, null.counts.shape[1]
    limit = 1 / math.sqrt(n_hidden)
    weight = torch.empty(n_hidden, n_null, device=device).uniform_(-limit, limit)
    bias, theta = null.share.log().to(device), null.theta.to(device)
    adam = torch.optim.Adam([weight, bias], config.learning_rate, eps=config.adam_eps)
    average = WeightAverage([weight, bias], config.averaging)
    for part in islice(_endless(len(null.rows), config.batch_size), n_steps):
        cells = table.take(null.rows[part]).to(device)
        hidden = model.decode(model.encode(cells).sample(), cells).hidden
        mu = (NullGenes(weight, bias).log_expression(hidden, cells.batch) + cells.log_total[:, None]).exp()
        slope = (mu - null.counts[torch.from_numpy(part)].to(device)) / (1 + mu / theta) / len(part)
        weight.grad = hidden.T @ slope
        bias.grad = torch.zeros_like(bias).index_add_(0, cells.batch, slope)
        adam.step()
        average.update()
    return NullGenes(*average.values)


def _endless(n: int, batch_size: int) -> Iterator[np.ndarray]:
    """Minibatches of one epoch after another."""
    order = np.random.default_rng(int(torch.randint(2**31, ()).item()))
    while True:
        yield from minibatches(np.arange(n), batch_size, order)
