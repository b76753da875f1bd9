"""Posteriors of a latent library that lie beside the cells, where their counts do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .base import Library, LibraryOutput

if TYPE_CHECKING:
    from ..cells import Cells


class StoredLibrary(Library):
    """Latent library with q(log l_n | x_n) = N(m_n, v_n) read by the number of the cell; `location` is m, `var` is v.

    Its KL is not known, as nobody asks for the bound of cells without counts.
    """

    location: torch.Tensor
    var: torch.Tensor

    def __init__(self, location: torch.Tensor, var: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("location", location, persistent=False)
        self.register_buffer("var", var, persistent=False)

    def forward(self, cells: Cells) -> LibraryOutput:
        """One draw of log l; the KL is NaN."""
        m, v = self.location[cells.index], self.var[cells.index]
        return LibraryOutput(m + v.sqrt() * torch.randn_like(m), torch.full_like(m, torch.nan))

    def mean(self, cells: Cells) -> torch.Tensor:
        """Posterior mean of log l, (n,)."""
        return self.location[cells.index]
