"""Log-normalised counts y = log(1 + T x / l), and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .cells import Counts

LEAST = 1e-8
"""Smallest value before shares are taken: zeros would have no logarithm."""


def log_normalized(counts: Counts, log_library: torch.Tensor, total: float) -> torch.Tensor:
    """log(1 + T x / l), dense, (n, n_genes), with T = `total`."""
    return counts.scaled(total * torch.exp(-log_library)).log1p()


def shares_of(y: torch.Tensor) -> torch.Tensor:
    """Shares of genes in exp(y) - 1, (n, n_genes); what is below zero counts as (nearly) nothing."""
    x = torch.expm1(y).clamp_min(LEAST)
    return x / x.sum(1, keepdim=True)
