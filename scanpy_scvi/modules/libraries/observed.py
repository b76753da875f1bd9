"""Library sizes that are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .base import Library, LibraryOutput

if TYPE_CHECKING:
    from ..cells import Cells, Dimensions


class ObservedLibrary(Library):
    """Known library l_n = sum_g x_ng, the total over the modelled genes."""

    def __init__(self, dims: Dimensions) -> None:
        super().__init__()

    def forward(self, cells: Cells) -> LibraryOutput:
        """Log total and a KL of zero."""
        return LibraryOutput(cells.log_total, torch.zeros_like(cells.log_total))

    def mean(self, cells: Cells) -> torch.Tensor:
        """Log total, (n,)."""
        return cells.log_total


class SizeFactorLibrary(Library):
    """Library l_n = c f_n for a given size factor f_n.

    The constant c puts size factors on the scale of totals (equal geometric means over the cells of the fit),
    because the proportions rho sum to one; it is applied when the data are read.
    """

    def __init__(self, dims: Dimensions) -> None:
        super().__init__()

    def forward(self, cells: Cells) -> LibraryOutput:
        """Log size factor and a KL of zero."""
        return LibraryOutput(cells.log_size_factor, torch.zeros_like(cells.log_size_factor))

    def mean(self, cells: Cells) -> torch.Tensor:
        """Log size factor, (n,)."""
        return cells.log_size_factor
