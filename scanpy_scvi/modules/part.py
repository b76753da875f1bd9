"""What all parts of a model have in common."""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence


class ModelPart(nn.Module, ABC):
    """One part of a model."""

    def penalty(self) -> torch.Tensor | None:
        """Price of the part's own weights, in nats, a scalar; it counts once per data set. None where there is none."""
        return None

    def fine_parameters(self) -> list[nn.Parameter]:
        """Parameters whose gradients are far smaller than others', so that Adam must not damp their steps."""
        return []

    def check(self) -> None:
        """Raise a ValueError where what was read from a file cannot be what this part holds."""


def normal_start(*shape: int, sd: float = 1.0) -> torch.Tensor:
    """Draws of N(0, sd^2) to start from.

    A model that is made without memory, to be filled, needs none, and for such draws torch would load its compiler.
    """
    start = torch.empty(shape)
    return start if start.is_meta else start.normal_().mul_(sd)


@torch.no_grad()
def copy_weights(module: nn.Module, fitted: nn.Module, leave: Sequence[str] = ()) -> None:
    """Copy parameters and statistics that are a module's own, not those of modules in it."""
    own = [*fitted.named_parameters(recurse=False), *fitted.named_buffers(recurse=False)]
    mine = dict([*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)])
    for name, tensor in own:
        if name not in leave:
            mine[name].copy_(tensor)
