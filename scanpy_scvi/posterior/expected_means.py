"""Means of groups of cells as the model expects them, where the counts are not at hand.

With m the mean of the expected proportions per 10,000 over draws of a group's cells and v their variance, w the mean of
10,000 over the cells' totals, L the mean total and theta the inverse dispersion,

    mean count:  L m / 10,000        variance of a count per 10,000:  w m + (m^2 + v) / theta + v

What only counts could tell, the share of cells with a count and the means of logarithms, is NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..numerics.draws import row_moments
from ..training.batches import CellTable, minibatches
from .group_draws import OWN
from .group_means import PER, GroupMeans

if TYPE_CHECKING:
    from ..modules.vae import VAE
    from .group_draws import Expected

JUDGES = 1000
"""Cells over which the overdispersion is averaged."""
CHUNK = 512


@torch.no_grad()
def model_overdispersion(model: VAE, table: CellTable, *, device: torch.device) -> np.ndarray:
    """Mean of 1 / theta of each gene over cells, (n_genes,), float64; zero where counts are Poisson."""
    model = model.to(device).eval()
    rows = np.unique(np.linspace(0, table.n_cells - 1, JUDGES).astype(np.int64))
    total = np.zeros(table.n_genes)
    for part in minibatches(rows, CHUNK):
        cells = table.take(part, counts=False).to(device)
        log_theta = model.likelihood.log_theta(model.decode(model.encode(cells).mean, cells), cells)
        if log_theta is None:
            return total
        inverse = torch.exp(-log_theta).cpu().double().expand(len(part), table.n_genes)
        total += inverse.sum(0).numpy()
    return total / len(rows)


def expected_means(
    table: CellTable, rows: np.ndarray, expected: Expected, scales: np.ndarray, overdispersion: np.ndarray
) -> GroupMeans:
    """Means of the cells `rows`, with `scales` draws of their proportions and `expected` the mean of those."""
    m = expected.mean
    v = PER**2 * row_moments(scales, np.arange(min(OWN, scales.shape[1])))[1]
    totals = np.exp(table.log_total[rows].astype(np.float64))
    w, unknown = float((PER / totals).mean()), np.full_like(m, np.nan)
    variance = w * m + (m**2 + v) * overdispersion + v
    raw = m * totals.mean() / PER
    n = len(rows)
    return GroupMeans(n, n * raw, raw, unknown, m, m**2 + variance * (n - 1) / max(n, 1), unknown, unknown, w)
