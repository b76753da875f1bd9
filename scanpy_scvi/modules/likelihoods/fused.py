"""The numba kernels as torch functions: softmax and likelihood, forward and backward in one pass over the minibatch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...numerics.softmax import SoftmaxHead

if TYPE_CHECKING:
    from ..cells import Counts
    from .dispersion import LogTheta

Kernel = Callable[..., SoftmaxHead]


def uses_kernels(logits: torch.Tensor) -> bool:
    """Whether the CPU kernels apply; other devices and precisions take the torch formula."""
    return logits.device.type == "cpu" and logits.dtype == torch.float32


def fused_nll(
    kernel: Kernel,
    counts: Counts,
    logits: torch.Tensor,
    log_library: torch.Tensor,
    log_theta: LogTheta | None = None,
    zero_logits: torch.Tensor | None = None,
) -> torch.Tensor:
    """Per-cell negative log-likelihood, (n,), by a kernel of :mod:`scanpy_scvi.numerics`."""
    table, row = (None, None) if log_theta is None else log_theta
    inputs = (logits, log_library, table, zero_logits)
    if torch.is_grad_enabled() and any(i is not None and i.requires_grad for i in inputs):
        return _FusedHead.apply(kernel, counts, row, *inputs)
    return torch.from_numpy(kernel(counts.rows(), *_arrays(row, *inputs), gradient=False).nll)


def _arrays(
    row: torch.Tensor | None,
    logits: torch.Tensor,
    log_library: torch.Tensor,
    table: torch.Tensor | None,
    zero_logits: torch.Tensor | None,
) -> list[np.ndarray]:
    """Arguments of the kernel, in its order."""
    given = (logits, log_library, table, row, zero_logits)
    return [a.detach().contiguous().numpy() for a in given if a is not None]


class _FusedHead(torch.autograd.Function):
    """A kernel whose gradient is computed in the forward pass, for the mean over cells that a fit asks for.

    Where the backward pass turns out to want another factor, the gradient is scaled.
    """

    @staticmethod
    def forward(
        ctx: Any, kernel: Kernel, counts: Counts, row: torch.Tensor | None, *inputs: torch.Tensor
    ) -> torch.Tensor:
        arrays = _arrays(row, *inputs)
        n = len(inputs[0])
        head = kernel(counts.rows(), *arrays, gradient=True, weights=np.full(n, 1 / n, np.float32))
        ctx.call = kernel, counts, arrays
        ctx.gradients = head[1:]
        return torch.from_numpy(head.nll)

    @staticmethod
    def backward(ctx: Any, weights: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        kernel, counts, arrays = ctx.call
        gradients, wanted = [torch.from_numpy(g) if g is not None else None for g in ctx.gradients], weights.numpy()
        scale = float(wanted[0]) / float(np.float32(1 / len(wanted)))
        if (wanted != wanted[0]).any():
            # theta's gradient is summed over cells, so unequal weights must enter the kernel itself (no model does
            # this)
            head = kernel(counts.rows(), *arrays, gradient=True, weights=np.ascontiguousarray(wanted))
            gradients, scale = [torch.from_numpy(g) if g is not None else None for g in head[1:]], 1.0
        if scale != 1:
            gradients = [None if g is None else g * scale for g in gradients]
        return None, None, None, *gradients
