"""What an output layer says of the average cell of each batch."""

from __future__ import annotations

import torch


@torch.no_grad()
def start_at_log_means(bias: torch.Tensor, covariate_weight: torch.Tensor | None, log_means: torch.Tensor) -> None:
    """Set b and V of logits W h + V s + b in place.

    Parameters
    ----------
    bias
        b, (n_genes,).
    covariate_weight
        V, (n_genes, n_covariates), whose first columns are those of the batches, where there are several.
    log_means
        Log mean proportions of each batch, (n_batches, n_genes).
    """
    overall = log_means.mean(0)
    bias.copy_(overall)
    if covariate_weight is not None:
        covariate_weight.zero_()
        if len(log_means) > 1:
            covariate_weight[:, : len(log_means)] = (log_means - overall).T


@torch.no_grad()
def shift_batch(covariate_weight: torch.Tensor | None, n_batches: int, batch: int, difference: torch.Tensor) -> None:
    """Add `difference` (n_genes,) to the logits of a batch, in V, where batches have columns in it."""
    if covariate_weight is not None and n_batches > 1:
        covariate_weight[:, batch] += difference.to(covariate_weight)
