"""A dense block in training as one torch function: product, covariates, batch normalisation, ReLU, dropout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from ..numerics.norm_relu_dropout import norm_relu_dropout, norm_relu_dropout_gradient
from ..numerics.norm_relu_dropout_part import Rows, norm_relu_dropout_part, norm_relu_dropout_part_gradient
from .cells import Counts
from .count_linear import is_sparse, sparse_product, sparse_product_gradient
from .precision import is_reduced

if TYPE_CHECKING:
    import numpy as np

    from .mlp import CovariateLinear
    from .shared import Part


def can_fuse(linear: CovariateLinear, norm: nn.Module, n_cells: int) -> bool:
    """Whether the kernel serves: batch statistics of more than one cell, float32 on the CPU."""
    weight = linear.weight
    is_float32 = weight.device.type == "cpu" and weight.dtype == torch.float32
    if not isinstance(norm, nn.BatchNorm1d) or norm.momentum is None:
        return False
    return norm.affine and norm.track_running_stats and norm.training and is_float32 and n_cells > 1


def fused_block(
    h: torch.Tensor | Counts,
    covariates: torch.Tensor,
    linear: CovariateLinear,
    norm: nn.BatchNorm1d,
    dropout_rate: float,
    part: Part | None = None,
) -> torch.Tensor:
    """Compute dropout(relu(norm(linear(h, covariates)))) in training, (n, n_out), of a part of the minibatch or all."""
    seed = int(torch.randint(2**32, ())) if dropout_rate else 0
    counts = h if isinstance(h, Counts) and is_sparse(h) else None
    if isinstance(h, Counts):
        dense = None if counts is not None else h.log1p()
        dense = dense.bfloat16() if dense is not None and is_reduced() else dense
    else:
        dense = h
    weights = linear.weight, linear.bias, linear.covariate_weight, norm.weight, norm.bias
    return _FusedBlock.apply(dense, counts, covariates, *weights, norm, dropout_rate, seed, part)


class _FusedBlock(torch.autograd.Function):
    """Forward and backward by products and one kernel each."""

    @staticmethod
    def forward(
        ctx: Any,
        h: torch.Tensor | None,
        counts: Counts | None,
        covariates: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        covariate_weight: torch.Tensor | None,
        gamma: torch.Tensor,
        beta: torch.Tensor,
        norm: nn.BatchNorm1d,
        rate: float,
        seed: int,
        part: Part | None,
    ) -> torch.Tensor:
        product = sparse_product(cast("Counts", counts), weight) if h is None else (h @ weight.T.to(h.dtype)).float()
        if covariate_weight is None:
            design, offsets = covariates[:, :0], weight.new_empty(0, len(weight))
        else:
            design, offsets = covariates, covariate_weight.T
        running = [cast("torch.Tensor", t) for t in (norm.running_mean, norm.running_var, norm.num_batches_tracked)]
        tensors = (product, bias, design, offsets, gamma, beta, *running[:2])
        arrays = [t.contiguous().numpy() for t in tensors]
        momentum = cast("float", norm.momentum)
        if part is None:
            normed = norm_relu_dropout(*arrays, eps=norm.eps, momentum=momentum, rate=rate, seed=seed)
        else:
            rows = _rows(part)
            normed = norm_relu_dropout_part(rows, *arrays, eps=norm.eps, momentum=momentum, rate=rate, seed=seed)
        running[2].add_(1)
        ctx.save = h, counts, weight, arrays[2], normed, arrays[4], rate, covariate_weight is not None, part
        return torch.from_numpy(normed.out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        h, counts, weight, design, normed, gamma, rate, has_covariates, part = ctx.save
        arrays = slope.contiguous().numpy(), normed, design, gamma
        if part is None:
            gradients = norm_relu_dropout_gradient(*arrays, rate=rate)
        else:
            gradients = norm_relu_dropout_part_gradient(*arrays, _rows(part), rate=rate)
        d, d_offsets, d_gamma, d_beta = (torch.from_numpy(g) for g in gradients)
        d_weight = sparse_product_gradient(counts, d) if h is None else (h.T @ d.to(h.dtype)).float().T
        d_h = d @ weight if ctx.needs_input_grad[0] else None
        d_covariates = d_offsets.T if has_covariates else None
        d_bias = torch.zeros_like(d_beta)
        return d_h, None, None, d_weight, d_bias, d_covariates, d_gamma, d_beta, None, None, None, None


def _rows(part: Part) -> Rows:
    """Say to the kernels which rows they have."""

    def total(array: np.ndarray) -> None:
        part.sum_(torch.from_numpy(array))

    return Rows(part.start, part.n, total)
