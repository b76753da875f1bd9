"""What a prior is."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from ..part import ModelPart

if TYPE_CHECKING:
    import torch

    from ..cells import Cells
    from ..encoders.base import LatentPosterior
    from ..latent_order import LatentOrder


class Prior(ModelPart):
    """Part that says what a plausible z costs.

    It is a KL function rather than a distribution, so that a prior with a closed form of its own can return it.
    """

    @abstractmethod
    def kl(self, posterior: LatentPosterior, z: torch.Tensor, cells: Cells) -> torch.Tensor:
        """KL(q(z | x) || p(z)) of n cells, (n,); `z` is a draw from `posterior`."""

    @abstractmethod
    def log_prob(self, z: torch.Tensor, cells: Cells) -> torch.Tensor:
        """log p(z), (n,)."""

    def reorder_latent(self, order: LatentOrder) -> None:
        """Rename the latent dimensions, in place."""
        raise NotImplementedError
