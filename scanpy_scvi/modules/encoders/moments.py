"""Mean and variance of the posterior from the last hidden layer, as one torch function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable

from .base import LatentPosterior

if TYPE_CHECKING:
    from ..mlp import CovariateLinear

VAR_FLOOR = 1e-4


def posterior_moments(h: torch.Tensor, mean: CovariateLinear, log_var: CovariateLinear) -> LatentPosterior:
    """Compute m(h) and exp(a(h)) + 1e-4 for h (n, n_hidden), with m the map `mean` and a the map `log_var`."""
    weights = mean.weight, log_var.weight, mean.bias, log_var.bias
    return LatentPosterior(*_PosteriorMoments.apply(h, *weights))


class _PosteriorMoments(torch.autograd.Function):
    """Both maps in one product, forward and backward: they are narrow, so that calls cost more than arithmetic."""

    @staticmethod
    def forward(ctx: Any, h: torch.Tensor, *parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weight, bias = torch.cat(parameters[:2]), torch.cat(parameters[2:])
        out = torch.addmm(bias, h, weight.T)
        n_latent = len(bias) // 2
        exponential = out[:, n_latent:].exp()
        ctx.save_for_backward(h, weight, exponential)
        return out[:, :n_latent].clone(), exponential + VAR_FLOOR

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_mean: torch.Tensor, d_var: torch.Tensor) -> tuple[torch.Tensor, ...]:
        h, weight, exponential = ctx.saved_tensors
        d = torch.cat([d_mean, d_var * exponential], dim=1)
        d_weight, d_bias = d.T @ h, d.sum(0)
        return d @ weight, *d_weight.chunk(2), *d_bias.chunk(2)
