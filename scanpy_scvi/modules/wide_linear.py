"""The decoder's last product: hidden units times weights, over all genes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ..numerics.team import share
from ..numerics.wide_rows import add_rows, round_rows
from .precision import is_reduced

if TYPE_CHECKING:
    import numpy as np

    from .mlp import CovariateLinear

_SECONDS = 1e-11
"""A multiplication and addition of bfloat16 in a matrix product."""


def wide_linear(h: torch.Tensor, linear: CovariateLinear, covariates: torch.Tensor | None = None) -> torch.Tensor:
    """Compute W h + V s + b, (n, n_out), for h (n, n_in) and covariates s (n, n_covariates), as `linear` does.

    In a block of :func:`.reduced_precision` W h is a product of bfloat16 matrices, forward and backward; bias and
    covariates are added in float32, so that the large common part of a logit is not rounded.
    """
    covariates = h[:, :0] if covariates is None else covariates
    return wide_affine(h, linear.weight, linear.bias, covariates, linear.covariate_weight)


def wide_affine(
    h: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    covariates: torch.Tensor,
    covariate_weight: torch.Tensor | None,
) -> torch.Tensor:
    """Compute the same from W (n_out, n_in), b and V, which need not belong to a layer."""
    if is_reduced() and h.device.type == "cpu" and h.dtype == torch.float32:
        return _ReducedLinear.apply(h, weight, bias, covariates, covariate_weight)
    out = functional.linear(h, weight, bias)
    return out if covariate_weight is None else out.addmm_(covariates, covariate_weight.T)


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
        design, bias_row, rows = ctx.factors[2], bias.detach().numpy(), offsets.numpy()
        out = torch.empty(len(h), len(weight), dtype=torch.float32)

        def work(start: int, stop: int) -> None:
            bits = (h[start:stop] @ weight.T).view(torch.uint16).numpy()
            add_rows(bits, bias_row, design[start:stop], rows, out[start:stop].numpy())

        share(len(h), _SECONDS * out.numel() * h.shape[1], work)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        h, weight, design, has_covariates = ctx.factors
        slope = slope.contiguous()
        d, d_h = torch.empty_like(slope, dtype=torch.bfloat16), torch.empty(h.shape, dtype=torch.float32)
        sums: dict[int, tuple[np.ndarray, np.ndarray]] = {}

        def by_cells(start: int, stop: int) -> None:
            part = slice(start, stop)
            bits = d[part].view(torch.uint16).numpy()
            _, d_bias, d_offsets = round_rows(slope[part].numpy(), design[part], bits)
            sums[start] = d_bias, d_offsets
            d_h[part] = d[part] @ weight

        def by_genes(start: int, stop: int) -> None:
            d_weight[:, start:stop] = h.T @ d[:, start:stop]

        seconds = _SECONDS * d.numel() * h.shape[1]
        share(len(h), seconds, by_cells)
        learns = ctx.needs_input_grad[1]  # not where only the columns of new categories are fitted
        d_weight = torch.empty(h.shape[1] if learns else 0, d.shape[1], dtype=torch.float32)
        if learns:
            share(d.shape[1], seconds, by_genes)
        d_bias, d_offsets = (torch.from_numpy(sum(sums[start][i] for start in sorted(sums))) for i in (0, 1))
        return d_h, d_weight.T if learns else None, d_bias, None, d_offsets.T if has_covariates else None
