"""What an encoder is."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..part import ModelPart
from ..shared import normal_like
from .inputs import to_total

if TYPE_CHECKING:
    from torch import nn

    from ..cells import Cells
    from ..latent_map import LatentMap
    from ..latent_order import LatentOrder


class LatentPosterior(NamedTuple):
    """Diagonal normal q(z | x, s), each field (n, n_latent); a point where there is no variance."""

    mean: torch.Tensor
    var: torch.Tensor | None
    """None for encoders that give each cell one z and no more."""

    def sample(self) -> torch.Tensor:
        """One reparametrised draw, z = mean + sqrt(var) * eps; a point is its only draw."""
        if self.var is None:
            return self.mean
        return torch.addcmul(self.mean, self.var.sqrt(), normal_like(self.mean))

    def log_prob(self, z: torch.Tensor) -> torch.Tensor:
        """log q(z | x, s) at z, (n,); zero for a point, which leaves the density out of a bound."""
        if self.var is None:
            return z.new_zeros(len(z))
        return -0.5 * ((z - self.mean).square() / self.var + (2 * math.pi * self.var).log()).sum(1)


class Encoder(ModelPart):
    """Part that gives each cell its approximate posterior."""

    input_total: float | None = None
    """Total that the counts of each cell are brought to before their logarithm is taken; None where they are not."""

    @property
    def gives_points(self) -> bool:
        """Whether posteriors have no variance."""
        return False

    @abstractmethod
    def forward(self, cells: Cells) -> LatentPosterior:
        """Posterior of z for n cells."""

    def representations(self) -> nn.Parameter | None:
        """A row of z for each cell of the data, (n_cells, n_latent), where there is such a table and no network.

        It is trained by rows, and stored with the cells rather than with the weights.
        """
        return None

    def with_representations(self, z: torch.Tensor) -> Encoder:
        """The same part with such a table for other cells, `z` (n_cells, n_latent)."""
        raise NotImplementedError

    def set_input_means(self, means: torch.Tensor) -> None:
        """Start at the average cell of each batch: `means` (n_batches, n_genes) of the logarithms that are read."""

    def shift_input(self, batch: int, difference: torch.Tensor) -> None:
        """Take `difference` (n_genes,) off log(1 + x) of a batch, as far as batches enter the first layer."""

    def input_scale(self, cells: Cells) -> torch.Tensor | None:
        """Factors by which this part multiplies counts before it looks at them, (n,); None where it does not."""
        return None if self.input_total is None else to_total(cells, self.input_total)

    def set_log_input_scale(self, batch: int, log_scale: float) -> None:
        """Choose the log factor for the cells of a batch that a model has grown by, where this part has one."""

    def learns_new(self, parameter: str) -> bool:
        """Whether entries of new categories in a parameter of this part are fitted when a model has grown."""
        return True

    def map_latent(self, latent_map: LatentMap) -> None:
        """Map the latent space, in place."""
        raise NotImplementedError

    def reorder_latent(self, order: LatentOrder) -> None:
        """Rename the latent dimensions, in place."""
        raise NotImplementedError
