"""Fit only what a model has gained for new categories; all else stays as it is, to the bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from ..modules.cells import Cells
    from ..modules.decoders.base import DecoderOutput
    from ..modules.encoders.base import Encoder, LatentPosterior
    from ..modules.growth import Grown
    from ..modules.libraries.base import Library
    from ..modules.likelihoods.base import Likelihood
    from ..modules.priors.base import Prior
    from ..modules.vae import Bound


class NewEntries(nn.Module):
    """A grown model of which only the entries of new categories learn, for the training loop.

    Gradients of old entries are zero, which leaves them as they are: Adam moves by nothing and averages equal numbers.
    Weights without new entries have no gradient at all. Cells' own latent states, where there is no encoder, move with
    them. The model stays in evaluation mode: no dropout, and batch
    normalisation with the statistics of the fit, which do not move.
    """

    def __init__(self, grown: Grown) -> None:
        super().__init__()
        self.model = grown.model.requires_grad_(requires_grad=False).eval()
        for name, learned in grown.learned.items():
            parameter = self.model.get_parameter(name).requires_grad_()
            parameter.register_hook(lambda gradient, learned=learned: _only(gradient, learned))
        table = self.model.encoder.representations()
        if table is not None:
            table.requires_grad_()

    def train(self, mode: bool = True) -> NewEntries:  # noqa: FBT001, FBT002  (torch's signature)
        """Stay in evaluation mode, whatever is asked for."""
        return super().train(mode=False)

    @property
    def encoder(self) -> Encoder:
        """Of the model."""
        return self.model.encoder

    @property
    def library(self) -> Library:
        """Of the model."""
        return self.model.library

    @property
    def likelihood(self) -> Likelihood:
        """Of the model."""
        return self.model.likelihood

    @property
    def prior(self) -> Prior:
        """Of the model."""
        return self.model.prior

    @property
    def penalties(self) -> nn.ModuleList:
        """None: they are of the fit, and a mapping knows nothing of them."""
        return nn.ModuleList()

    def encode(self, cells: Cells) -> LatentPosterior:
        """q(z | x, s)."""
        return self.model.encode(cells)

    def decode(self, z: torch.Tensor, cells: Cells) -> DecoderOutput:
        """Decode z with the covariates of `cells`."""
        return self.model.decode(z, cells)

    def forward(self, cells: Cells) -> Bound:
        """Terms of the bound."""
        return self.model(cells)

    def weight_penalty(self) -> torch.Tensor | None:
        """Price of all weights, of which only those of new entries have a gradient."""
        return self.model.weight_penalty()


def _only(gradient: torch.Tensor, learned: torch.Tensor) -> torch.Tensor:
    """Gradient without that of old entries."""
    return gradient.where(learned.to(gradient.device), gradient.new_zeros(()))
