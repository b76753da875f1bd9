"""The encoder's first product: log(1 + counts) times weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ..numerics.count_product import log1p_product, log1p_product_gradient
from .precision import is_reduced

if TYPE_CHECKING:
    from .cells import Counts

DENSE_FROM = {False: 0.25, True: 0.15}
"""Share of non-zero counts from which a dense product is faster, in float32 and with factors in bfloat16."""


def count_linear(counts: Counts, weight: torch.Tensor) -> torch.Tensor:
    """Compute log(1 + X) Wᵀ, (n, n_out), for counts X (n, n_genes) and `weight` (n_out, n_genes).

    On the CPU the product costs with the non-zero counts, unless they are many; elsewhere it is a dense one.
    """
    if is_sparse(counts) and weight.device.type == "cpu" and weight.dtype == torch.float32:
        return _CountLinear.apply(counts, weight)
    return functional.linear(counts.log1p().to(weight.dtype), weight)


def is_sparse(counts: Counts) -> bool:
    """Whether there are few enough non-zero counts for a sparse product."""
    return len(counts.data) < DENSE_FROM[is_reduced()] * (len(counts.indptr) - 1) * counts.n_genes


def sparse_product(counts: Counts, weight: torch.Tensor) -> torch.Tensor:
    """Compute log(1 + X) Wᵀ at the cost of the stored counts; not differentiable by itself."""
    matrix = weight.detach().T.contiguous()  # no copy where the weights are stored input-major
    return torch.from_numpy(log1p_product(counts.rows(), matrix.numpy()))


def sparse_product_gradient(counts: Counts, slope: torch.Tensor) -> torch.Tensor:
    """Gradient of that with respect to W, given the one with respect to the product."""
    return torch.from_numpy(log1p_product_gradient(counts.rows(), slope.contiguous().numpy(), counts.n_genes)).T


class _CountLinear(torch.autograd.Function):
    """The sparse product as a torch function."""

    @staticmethod
    def forward(ctx: Any, counts: Counts, weight: torch.Tensor) -> torch.Tensor:
        ctx.counts = counts
        return sparse_product(counts, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, sparse_product_gradient(ctx.counts, slope)
