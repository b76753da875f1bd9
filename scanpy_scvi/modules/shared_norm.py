"""Batch normalisation by the moments of a minibatch that processes share, in plain torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from torch import nn

    from .shared import Part


def shared_norm(x: torch.Tensor, norm: nn.BatchNorm1d, part: Part) -> torch.Tensor:
    """Compute norm(x) in training, (n, width), where `x` is a part of the minibatch."""
    return _SharedNorm.apply(x, norm.weight, norm.bias, norm, part)


class _SharedNorm(torch.autograd.Function):
    """The formulas of :mod:`.norm_relu_dropout`, with sums over all processes.

    Moments come from sums of x and x^2 in float64, which keeps what float32 inputs have to say of a variance.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, norm: nn.BatchNorm1d, part: Part
    ) -> torch.Tensor:
        wide = x.double()
        sums = torch.stack([wide.sum(0), wide.square().sum(0)])
        part.sum_(sums)
        mean, square = sums / part.n
        var = (square - mean.square()).clamp_min(0)
        running = cast("torch.Tensor", norm.running_mean), cast("torch.Tensor", norm.running_var)
        momentum = cast("float", norm.momentum)
        running[0].lerp_(mean.to(x.dtype), momentum)
        running[1].lerp_((var * (part.n / (part.n - 1))).to(x.dtype), momentum)
        cast("torch.Tensor", norm.num_batches_tracked).add_(1)
        inverse_std = (var + norm.eps).rsqrt()
        standard = ((wide - mean) * inverse_std).to(x.dtype)
        ctx.save_for_backward(standard, inverse_std.to(x.dtype), gamma)
        ctx.part = part
        return gamma * standard + beta

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        standard, inverse_std, gamma = ctx.saved_tensors
        own = torch.stack([slope.sum(0), (slope * standard).sum(0)])
        d_beta, d_gamma = own.clone()
        ctx.part.sum_(own)
        d_x = gamma * inverse_std * (slope - (own[0] + standard * own[1]) / ctx.part.n)
        return d_x, d_gamma, d_beta, None, None
