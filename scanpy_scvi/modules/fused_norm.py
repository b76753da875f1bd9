"""The numba kernel of batch normalisation, ReLU and dropout as a torch function."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..numerics.norm_relu_dropout import norm_relu_dropout, norm_relu_dropout_gradient


def can_fuse(a: torch.Tensor, norm: nn.Module) -> bool:
    """Whether the kernel serves: batch statistics of more than one cell, float32 on the CPU."""
    is_float32 = a.device.type == "cpu" and a.dtype == torch.float32
    return isinstance(norm, nn.BatchNorm1d) and norm.training and is_float32 and len(a) > 1


def fused_norm(a: torch.Tensor, norm: nn.BatchNorm1d, dropout_rate: float) -> torch.Tensor:
    """Compute dropout(relu(norm(a))) in training, (n, width)."""
    seed = int(torch.randint(2**32, ())) if dropout_rate else 0
    return _FusedNorm.apply(a, norm.weight, norm.bias, norm, dropout_rate, seed)


class _FusedNorm(torch.autograd.Function):
    """Forward and backward by the kernel."""

    @staticmethod
    def forward(
        ctx: Any,
        a: torch.Tensor,
        gamma: torch.Tensor,
        beta: torch.Tensor,
        norm: nn.BatchNorm1d,
        rate: float,
        seed: int,
    ) -> torch.Tensor:
        running = norm.running_mean.numpy(), norm.running_var.numpy()
        arrays = (t.detach().contiguous().numpy() for t in (a, gamma, beta))
        normed = norm_relu_dropout(*arrays, *running, eps=norm.eps, momentum=norm.momentum, rate=rate, seed=seed)
        norm.num_batches_tracked.add_(1)
        ctx.normed, ctx.gamma, ctx.rate = normed, gamma.detach().numpy(), rate
        return torch.from_numpy(normed.out)

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradients = norm_relu_dropout_gradient(slope.contiguous().numpy(), ctx.normed, ctx.gamma, rate=ctx.rate)
        return *(torch.from_numpy(g) for g in gradients), None, None, None
