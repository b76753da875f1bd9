"""What a penalty is."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, NamedTuple

from ..part import ModelPart

if TYPE_CHECKING:
    import torch

    from ..cells import Cells
    from ..decoders.base import DecoderOutput
    from ..encoders.base import LatentPosterior


class Seen(NamedTuple):
    """One minibatch inside a model."""

    posterior: LatentPosterior
    z: torch.Tensor
    """A draw from the posterior, (n, n_latent)."""
    output: DecoderOutput
    cells: Cells


class Penalty(ModelPart):
    """Part that prices what cells of a minibatch have to do with each other.

    It sees one minibatch at a time, so its value depends on the minibatches' size. It is added to the loss in training,
    and is no part of the bound that a fit is judged by.
    """

    @abstractmethod
    def forward(self, seen: Seen) -> torch.Tensor:
        """Price per cell of a minibatch, in nats, a scalar."""
