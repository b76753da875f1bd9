"""What a prior is."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import torch

from ..part import ModelPart

if TYPE_CHECKING:
    from ..cells import Cells
    from ..encoders.base import LatentPosterior
    from ..latent_order import LatentOrder


class Prior(ModelPart):
    """Part that says what a plausible z costs.

    It is a KL function rather than a distribution, so that a prior with a closed form of its own can return it.
    """

    sets_scale = True
    """Whether z is on the scale of this prior, where a variance far below one means nothing is said of the cell."""

    @abstractmethod
    def kl(self, posterior: LatentPosterior, z: torch.Tensor, cells: Cells) -> torch.Tensor:
        """KL(q(z | x) || p(z)) of n cells, (n,); `z` is a draw from `posterior`. Where that is a point, -log p(z)."""

    @abstractmethod
    def log_prob(self, z: torch.Tensor, cells: Cells) -> torch.Tensor:
        """log p(z), (n,)."""

    @property
    def reads_labels(self) -> bool:
        """Whether the labels of cells matter."""
        return False

    def reorder_latent(self, order: LatentOrder) -> None:
        """Rename the latent dimensions, in place."""
        raise NotImplementedError

    def responsibilities(self, z: torch.Tensor) -> torch.Tensor | None:
        """p(component | z), (n, n_components), where the prior has components."""
        return None

    def centres(self, n_latent: int) -> torch.Tensor:
        """Where p(z) is high, (n_centres, n_latent): starts for the search of a cell's z. By default the origin."""
        return torch.zeros(1, n_latent)

    def set_places(self, z: torch.Tensor) -> None:
        """Start from where cells are: `z`, (n_cells, n_latent)."""

    def settle(self) -> None:
        """Put what has no order into one, after a fit."""
