"""The standard normal prior."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from .base import Prior

if TYPE_CHECKING:
    from ..cells import Cells, Dimensions
    from ..encoders.base import LatentPosterior
    from ..latent_order import LatentOrder


class StandardNormal(Prior):
    """Prior p(z) = N(0, I).

    For a diagonal posterior N(m, v): KL = 1/2 sum_d (m_d^2 + v_d - 1 - log v_d).
    Kingma and Welling 2014, appendix B.
    """

    def __init__(self, dims: Dimensions) -> None:
        super().__init__()

    def kl(self, posterior: LatentPosterior, z: torch.Tensor, cells: Cells) -> torch.Tensor:
        """Closed-form KL, (n,); -log p(z) for a point."""
        m, v = posterior
        if v is None:
            return -self.log_prob(z, cells)
        return 0.5 * (torch.addcmul(v - 1, m, m) - v.log()).sum(1)

    def log_prob(self, z: torch.Tensor, cells: Cells) -> torch.Tensor:
        """log N(z; 0, I), (n,)."""
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)

    def reorder_latent(self, order: LatentOrder) -> None:
        """Do nothing: it is the same for all dimensions, and symmetric."""
