"""What a prior is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from ..cells import Cells
    from ..encoders.base import LatentPosterior


class Prior(nn.Module, ABC):
    """Part that says what a plausible z costs.

    It is a KL function rather than a distribution, so that a prior with a closed form of its own can return it.
    """

    @abstractmethod
    def kl(self, posterior: LatentPosterior, z: torch.Tensor, cells: Cells) -> torch.Tensor:
        """KL(q(z | x) || p(z)) of n cells, (n,); `z` is a draw from `posterior`."""

    @abstractmethod
    def log_prob(self, z: torch.Tensor, cells: Cells) -> torch.Tensor:
        """log p(z), (n,)."""
