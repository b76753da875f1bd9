"""What an encoder is."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..part import ModelPart

if TYPE_CHECKING:
    from ..cells import Cells
    from ..latent_order import LatentOrder


class LatentPosterior(NamedTuple):
    """Diagonal normal q(z | x, s), each field (n, n_latent)."""

    mean: torch.Tensor
    var: torch.Tensor

    def sample(self) -> torch.Tensor:
        """One reparametrised draw, z = mean + sqrt(var) * eps."""
        return torch.addcmul(self.mean, self.var.sqrt(), torch.randn_like(self.mean))


class Encoder(ModelPart):
    """Part that gives each cell its approximate posterior."""

    @abstractmethod
    def forward(self, cells: Cells) -> LatentPosterior:
        """Posterior of z for n cells."""

    def set_input_means(self, means: torch.Tensor) -> None:
        """Start at the average cell of each batch, where batches enter: `means` (n_batches, n_genes) of log(1 + x)."""

    def shift_input(self, batch: int, difference: torch.Tensor) -> None:
        """Take `difference` (n_genes,) off log(1 + x) of a batch, as far as batches enter the first layer."""

    def input_scale(self, cells: Cells) -> torch.Tensor | None:
        """Factors by which this part multiplies counts before it looks at them, (n,); None where it does not."""
        return None

    def set_log_input_scale(self, batch: int, log_scale: float) -> None:
        """Choose the log factor for the cells of a batch that a model has grown by, where this part has one."""

    def learns_new(self, parameter: str) -> bool:
        """Whether entries of new categories in a parameter of this part are fitted when a model has grown."""
        return True

    def reorder_latent(self, order: LatentOrder) -> None:
        """Rename the latent dimensions, in place."""
        raise NotImplementedError
