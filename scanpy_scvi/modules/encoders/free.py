"""No encoder: every cell has a latent state of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from ..part import normal_start
from .base import Encoder, LatentPosterior

if TYPE_CHECKING:
    from ..cells import Cells, Dimensions
    from ..latent_order import LatentOrder


START_SD = 0.1
"""Spread of latent states at the start, where none are set: not zero, or a first layer would have no gradient."""


class FreeEncoder(Encoder):
    """Latent states that are parameters: z_n is row n of the table Z, and has no variance.

    A cell that was not in the fit has no row; :func:`.represent` finds one for it. Schuster and Krogh 2023,
    Bioinformatics 39:btad497.
    """

    def __init__(self, dims: Dimensions, *, n_latent: int, n_cells: int) -> None:
        super().__init__()
        self.dims = dims
        self.z = nn.Parameter(normal_start(n_cells, n_latent, sd=START_SD))

    @property
    def gives_points(self) -> bool:
        """Always."""
        return True

    def forward(self, cells: Cells) -> LatentPosterior:
        """Rows of n cells; the gradient of Z is sparse, since it is zero in all others."""
        return LatentPosterior(functional.embedding(cells.index, self.z, sparse=True), None)

    def representations(self) -> nn.Parameter:
        """Z, (n_cells, n_latent)."""
        return self.z

    def with_representations(self, z: torch.Tensor) -> FreeEncoder:
        """No encoder for other cells, `z` (n_cells, n_latent)."""
        with torch.device("meta"):  # no numbers are drawn
            other = FreeEncoder(self.dims, n_latent=z.shape[1], n_cells=1)
        other.z = nn.Parameter(z)
        return other

    def reorder_latent(self, order: LatentOrder) -> None:
        """Rename the latent dimensions, in place: the columns of Z."""
        order.rename(self.z, 1)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        n_cells, n_latent = self.z.shape
        return f"{n_cells}, {n_latent}"
