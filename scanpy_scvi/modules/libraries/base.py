"""What a library part is."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, NamedTuple

from ..part import ModelPart

if TYPE_CHECKING:
    import torch

    from ..cells import Cells


class LibraryOutput(NamedTuple):
    """Log library size of n cells and what it costs."""

    log_library: torch.Tensor
    """(n,)."""
    kl: torch.Tensor
    """KL(q(l) || p(l)), (n,); zero where the library is not latent."""


class Library(ModelPart):
    """Part that gives each cell its library size l, in mu = l * rho."""

    @abstractmethod
    def forward(self, cells: Cells) -> LibraryOutput:
        """Log library and its KL for n cells; a latent library is drawn in every call."""

    @abstractmethod
    def mean(self, cells: Cells) -> torch.Tensor:
        """Log library without noise, (n,)."""
