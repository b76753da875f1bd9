"""No prior."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .base import Prior

if TYPE_CHECKING:
    import torch

    from ..cells import Cells, Dimensions
    from ..encoders.base import LatentPosterior
    from ..latent_order import LatentOrder


class FlatPrior(Prior):
    """Improper prior p(z) = 1, for autoencoders: all z are alike, and a point costs nothing."""

    sets_scale = False

    def __init__(self, dims: Dimensions) -> None:
        super().__init__()

    def kl(self, posterior: LatentPosterior, z: torch.Tensor, cells: Cells) -> torch.Tensor:
        """Zero for a point; for a normal posterior minus its entropy, (n,)."""
        if posterior.var is None:
            return z.new_zeros(len(z))
        return -0.5 * (1 + math.log(2 * math.pi) + posterior.var.log()).sum(1)

    def log_prob(self, z: torch.Tensor, cells: Cells) -> torch.Tensor:
        """Zero, (n,)."""
        return z.new_zeros(len(z))

    def reorder_latent(self, order: LatentOrder) -> None:
        """Do nothing: it is the same everywhere."""
