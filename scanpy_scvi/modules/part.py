"""What all parts of a model have in common."""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    import torch


class ModelPart(nn.Module, ABC):
    """One part of a model."""

    def penalty(self) -> torch.Tensor | None:
        """Price of the part's own weights, in nats, a scalar; it counts once per data set. None where there is none."""
        return None
