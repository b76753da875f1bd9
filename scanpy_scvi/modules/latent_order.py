"""Another order and other signs of the latent dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


class LatentOrder(NamedTuple):
    """A model that is symmetric in its latent dimensions may have them renamed: z'_i = sign_i z_{order_i}."""

    order: torch.Tensor
    """Old dimension that each new one is, (n_latent,), integer."""
    sign: torch.Tensor
    """1 or -1 for each new dimension, (n_latent,), float32."""

    @classmethod
    def of(cls, order: Sequence[int] | np.ndarray, sign: Sequence[float] | np.ndarray) -> LatentOrder:
        """From plain numbers."""
        return cls(torch.as_tensor(order, dtype=torch.int64), torch.as_tensor(sign, dtype=torch.float32))

    @torch.no_grad()
    def rename(self, tensor: torch.Tensor, dim: int, *, signed: bool = True) -> None:
        """Rename the entries along `dim` in place; with their signs, where it is z that they belong to."""
        renamed = tensor.index_select(dim, self.order.to(tensor.device))
        if signed:
            shape = [1] * tensor.dim()
            shape[dim] = -1
            renamed = renamed * self.sign.to(tensor.device).reshape(shape)
        tensor.copy_(renamed)
