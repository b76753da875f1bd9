"""Distances between the cells of a minibatch."""

from __future__ import annotations

import torch


def squared_distances(z: torch.Tensor) -> torch.Tensor:
    """|z_i - z_j|^2, (n, n), with a zero diagonal."""
    z = z - z.detach().mean(0)  # so that little cancels
    squares = z.square().sum(1)
    return torch.clamp_min(squares[:, None] + squares - 2 * (z @ z.T), 0).masked_fill(diagonal(z), 0)


def diagonal(z: torch.Tensor) -> torch.Tensor:
    """Where a cell meets itself, (n, n), bool."""
    return torch.eye(len(z), dtype=torch.bool, device=z.device)
