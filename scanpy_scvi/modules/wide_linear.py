"""The decoder's last product: hidden units times weights, over all genes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..numerics.wide_rows import add_rows, round_rows
from .precision import is_reduced

if TYPE_CHECKING:
    from .mlp import CovariateLinear


def wide_linear(
    h: torch.Tensor, linear: CovariateLinear, covariates: torch.Tensor | None = None
) -> torch.Tensor:
    """Compute W h + V s + b, (n, n_out), for h (n, n_in) and covariates s (n, n_covariates), as `linear` does.

    In a block of :func:`.reduced_precision` W h is a product of bfloat16 matrices, forward and backward; bias and
    covariates are added in float32, so that the large common part of a logit is not rounded.
    """
    covariates = h[:, :0] if covariates is None else covariates
    if is_reduced() and h.device.type == "cpu" and h.dtype == torch.float32:
        return _ReducedLinear.apply(h, linear.weight, linear.bias, covariates, linear.covariate_weight)
    return linear(h, covariates)


class _ReducedLinear(torch.autograd.Function):
    """The product in bfloat16."""

    @staticmethod
    def forward(
        ctx: Any,
        h: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        covariates: torch.Tensor,
        covariate_weight: torch.Tensor | None,
    ) -> torch.Tensor:
        h, weight = h.detach().bfloat16(), weight.detach().bfloat16()
        design = covariates if covariate_weight is not None else covariates[:, :0]
        offsets = bias.new_empty(0, len(bias)) if covariate_weight is None else covariate_weight.detach().T.contiguous()
        ctx.factors = h, weight, design.contiguous().numpy(), covariate_weight is not None
        bits = (h @ weight.T).view(torch.uint16).numpy()
        return torch.from_numpy(add_rows(bits, bias.detach().numpy(), ctx.factors[2], offsets.numpy()))

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        h, weight, design, has_covariates = ctx.factors
        bits, d_bias, d_offsets = round_rows(slope.contiguous().numpy(), design)
        d = torch.from_numpy(bits).view(torch.bfloat16)
        d_weight = (h.T @ d).float().T
        d_covariate = torch.from_numpy(d_offsets).T if has_covariates else None
        return (d @ weight).float(), d_weight, torch.from_numpy(d_bias), None, d_covariate
