"""The numba kernels as torch functions: softmax and likelihood, forward and backward in one pass over the minibatch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from ...numerics._memory import aligned_empty
from ...numerics.softmax import SoftmaxHead
from ...numerics.sparse import slice_rows
from ...numerics.team import share
from ..shared import shared_part

if TYPE_CHECKING:
    from ...numerics.sparse import CSRRows
    from ..cells import Counts
    from .dispersion import LogTheta

Kernel = Callable[..., SoftmaxHead]

_SECONDS = 2e-9
"""A kernel's value and gradient of one entry."""
_ROUNDING = 4 * float(np.finfo(np.float32).eps)
"""Relative error of a factor that is the mean's."""


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
    return torch.from_numpy(kernel(counts.rows(), *_arrays(row, *inputs).given(), gradient=False).nll)


class HeadArrays(NamedTuple):
    """Arguments of a kernel, in its order; None for those that it does not have."""

    logits: np.ndarray
    log_library: np.ndarray
    log_theta: np.ndarray | None
    theta_row: np.ndarray | None
    zero_logits: np.ndarray | None

    def given(self) -> list[np.ndarray]:
        """Those that it has."""
        return [a for a in self if a is not None]


def _arrays(
    row: torch.Tensor | None,
    logits: torch.Tensor,
    log_library: torch.Tensor,
    table: torch.Tensor | None,
    zero_logits: torch.Tensor | None,
) -> HeadArrays:
    """The same memory as NumPy arrays."""
    tensors = (logits, log_library, table, row, zero_logits)
    return HeadArrays._make(None if t is None else t.detach().contiguous().numpy() for t in tensors)


def _shared(kernel: Kernel, rows: CSRRows, arrays: HeadArrays, weights: np.ndarray) -> SoftmaxHead:
    """Run a kernel with its gradient on parts of the cells at a time; what is summed over cells is added up."""
    n, table, row = len(weights), arrays.log_theta, arrays.theta_row
    own_row = table is not None and len(table) == n and np.array_equal(cast("np.ndarray", row), np.arange(n))
    like = (arrays.log_library, arrays.logits, arrays.log_library, table if own_row else None, arrays.zero_logits)
    out = SoftmaxHead._make(None if a is None else aligned_empty(a.shape) for a in like)
    d_theta: dict[int, np.ndarray] = {}

    def work(start: int, stop: int) -> None:
        part = slice(start, stop)
        given = HeadArrays._make(None if a is None else a[part] for a in arrays)
        into = SoftmaxHead._make(None if a is None else a[part] for a in out)
        if own_row:
            given = given._replace(theta_row=np.arange(stop - start))
        elif table is not None:
            d_theta[start] = aligned_empty(table.shape)
            given, into = given._replace(log_theta=table), into._replace(log_theta=d_theta[start])
        kernel(slice_rows(rows, start, stop), *given.given(), gradient=True, weights=weights[part], out=into)

    share(n, _SECONDS * arrays.logits.size, work)
    return out._replace(log_theta=np.sum([d_theta[start] for start in sorted(d_theta)], axis=0)) if d_theta else out


class _FusedHead(torch.autograd.Function):
    """A kernel whose gradient is computed in the forward pass, for the mean over cells that a fit asks for.

    The mean is that over the whole minibatch where the cells are a part of one. Where the backward pass turns out to
    want another factor, the gradient is scaled.
    """

    @staticmethod
    def forward(
        ctx: Any, kernel: Kernel, counts: Counts, row: torch.Tensor | None, *inputs: torch.Tensor
    ) -> torch.Tensor:
        arrays = _arrays(row, *inputs)
        part, n = shared_part(), len(inputs[0])
        share_of_mean = np.float32(1 / (n if part is None else part.n))
        head = _shared(kernel, counts.rows(), arrays, np.full(n, share_of_mean))
        ctx.call = kernel, counts, arrays, float(share_of_mean)
        ctx.gradients = head[1:]
        return torch.from_numpy(head.nll)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weights: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        kernel, counts, arrays, share_of_mean = ctx.call
        found, wanted = ctx.gradients, weights.numpy()
        ctx.gradients = None  # handed out below, and then no longer ours
        scale = float(wanted[0]) / share_of_mean
        if found is None or (wanted != wanted[0]).any():
            # a second backward pass; or unequal weights, which must enter the kernel, as theta's gradient is summed
            # over cells (no model does this)
            found, scale = _shared(kernel, counts.rows(), arrays, np.ascontiguousarray(wanted))[1:], 1.0
        gradients = [torch.from_numpy(g) if g is not None else None for g in found]
        if abs(scale - 1) > _ROUNDING:
            gradients = [None if g is None else g * scale for g in gradients]
        return None, None, None, *gradients
