"""Start a model at the average cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..modules.libraries import LogNormalLibrary

if TYPE_CHECKING:
    from ..modules.vae import VAE
    from .batches import CellTable

LOG_THETA = 0.0
"""Start of log theta: clearly overdispersed, as counts are before z explains them."""


def start_from_data(model: VAE, table: CellTable) -> None:
    """Set the decoder's bias to the log mean proportions, theta to one, and a latent library to the mean log total.

    A network that starts from noise spends its first epochs on finding these averages.
    """
    totals = np.bincount(table.counts.indices, weights=table.counts.data, minlength=table.n_genes)
    log_means = np.log((totals + 0.5) / (totals.sum() + 0.5 * table.n_genes))
    model.decoder.set_log_means(torch.from_numpy(log_means.astype(np.float32)))
    model.likelihood.set_log_theta(torch.full((table.n_genes,), LOG_THETA))
    if isinstance(model.library, LogNormalLibrary):
        model.library.set_log_mean(float(table.log_total.mean()))
