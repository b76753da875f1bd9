"""The price of the weights of linear maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .mlp import CovariateLinear

if TYPE_CHECKING:
    from torch import nn


def weight_price(module: nn.Module, l2: float) -> torch.Tensor | None:
    """l2 / 2 times the sum of all squared weights of the linear maps in a module, biases and covariates left out.

    That is the price of weights ~ N(0, 1 / l2), without constants. None where `l2` is zero.
    """
    if not l2:
        return None
    maps = [part for part in module.modules() if isinstance(part, CovariateLinear)]
    return 0.5 * l2 * torch.stack([linear.weight.square().sum() for linear in maps]).sum()
