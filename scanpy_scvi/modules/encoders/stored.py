"""Posteriors that lie beside the cells, where their counts do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Encoder, LatentPosterior

if TYPE_CHECKING:
    import torch

    from ..cells import Cells


class StoredEncoder(Encoder):
    """Posterior q(z_n | x_n) = N(m_n, diag(v_n)) read by the number of the cell; `mean` is m, `var` is v, if any."""

    mean: torch.Tensor
    var: torch.Tensor | None

    def __init__(self, mean: torch.Tensor, var: torch.Tensor | None) -> None:
        super().__init__()
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("var", var, persistent=False)

    def forward(self, cells: Cells) -> LatentPosterior:
        """Posterior of z for n cells."""
        return LatentPosterior(self.mean[cells.index], None if self.var is None else self.var[cells.index])
