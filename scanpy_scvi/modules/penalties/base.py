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
    from ..spec import ModelSpec


class Seen(NamedTuple):
    """One minibatch inside a model."""

    posterior: LatentPosterior
    z: torch.Tensor
    """A draw from the posterior, (n, n_latent)."""
    output: DecoderOutput
    cells: Cells


class Axes(NamedTuple):
    """Principal axes of log-normalised counts: y_n = W' log(1 + T x_n / l_n), up to a shift."""

    weights: torch.Tensor
    """W, (n_genes, number of axes)."""
    total: float
    """T."""


class Penalty(ModelPart):
    """Part that prices what cells of a minibatch have to do with each other.

    It sees one minibatch at a time, so its value depends on the minibatches' size. It is added to the loss in training,
    and is no part of the bound that a fit is judged by.
    """

    n_axes = 0
    """Principal axes of the data that it wants to be given before a fit."""

    @abstractmethod
    def forward(self, seen: Seen) -> torch.Tensor:
        """Price per cell of a minibatch, in nats, a scalar."""

    def check_use(self, spec: ModelSpec, n_cells: int) -> None:
        """Raise a ValueError where it means nothing for a model, or for minibatches of as few as `n_cells` cells."""

    def set_axes(self, axes: Axes) -> None:
        """Take the principal axes of the data; they are of the fit, not of the model, and are not stored with it."""
        raise NotImplementedError


def check_weight(weight: float) -> None:
    """Raise a ValueError for a weight that rewards what should be dear."""
    if weight < 0:
        msg = f"the weight of a penalty is {weight}, but 0 or more was expected"
        raise ValueError(msg)
