"""The whole model: encode, decode, bound."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from .penalties.base import Seen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .cells import Cells
    from .decoders.base import Decoder, DecoderOutput
    from .encoders.base import Encoder, LatentPosterior
    from .latent_order import LatentOrder
    from .libraries.base import Library
    from .likelihoods.base import Likelihood
    from .penalties.base import Penalty
    from .priors.base import Prior


class Bound(NamedTuple):
    """Terms of the negative evidence bound of n cells, each (n,), in nats."""

    nll: torch.Tensor
    """-log p(x | z, l, s) at one draw of z (and l)."""
    kl: torch.Tensor
    """KL(q(z | x) || p(z))."""
    kl_library: torch.Tensor
    """KL(q(l | x) || p(l))."""

    penalty: torch.Tensor | None = None
    """What penalties add to the mean loss of the minibatch, a scalar; None where there are none."""

    def terms(self) -> torch.Tensor:
        """Stack the terms of the bound, (3, n)."""
        return torch.stack(self[:3])

    def loss(self, kl_weight: float = 1.0) -> torch.Tensor:
        """Negative ELBO, (n,), with a weight on the KL of z alone; without penalties."""
        return self.nll + kl_weight * self.kl + self.kl_library


class VAE(nn.Module):
    """Conditional variational autoencoder of counts, made of five parts, and of penalties where there are any.

        z_n ~ p(z),   l_n given or ~ p(l | s_n),   rho_n = decoder(z_n, s_n),   x_ng ~ likelihood(l_n rho_ng)

        -ELBO_n = E_q[-log p(x_n | z_n, l_n, s_n)] + KL(q(z_n | x_n) || p(z)) + KL(q(l_n | x_n) || p(l | s_n))

    Lopez et al. 2018, Nat Methods 15:1053; Shi 2021, arXiv 2101.00650, eqs. 55-69.
    """

    def __init__(
        self,
        encoder: Encoder,
        library: Library,
        decoder: Decoder,
        likelihood: Likelihood,
        prior: Prior,
        penalties: Sequence[Penalty] = (),
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.library = library
        self.decoder = decoder
        self.likelihood = likelihood
        self.prior = prior
        self.penalties = nn.ModuleList(penalties)

    @property
    def reads_labels(self) -> bool:
        """Whether labels of cells make a difference."""
        return self.likelihood.reads_labels or self.prior.reads_labels

    def encode(self, cells: Cells) -> LatentPosterior:
        """q(z | x, s)."""
        return self.encoder(cells)

    def decode(self, z: torch.Tensor, cells: Cells) -> DecoderOutput:
        """Decode z with the covariates of `cells`."""
        return self.decoder(z, cells)

    def forward(self, cells: Cells) -> Bound:
        """Terms of the bound at one draw of z (and of a latent library)."""
        posterior = self.encode(cells)
        z = posterior.sample()
        log_library, kl_library = self.library(cells)
        output = self.decode(z, cells)
        nll = self.likelihood.nll(output, log_library, cells)
        kl = self.prior.kl(posterior, z, cells)
        if not self.penalties or not self.training:
            return Bound(nll, kl, kl_library)
        seen = Seen(posterior, z, output, cells)
        return Bound(nll, kl, kl_library, torch.stack([penalty(seen) for penalty in self.penalties]).sum())

    def reorder_latent(self, order: LatentOrder) -> None:
        """Rename the latent dimensions of a fitted model, in place; what it says of cells and counts stays the same."""
        self.encoder.reorder_latent(order)
        self.decoder.reorder_latent(order)
        self.prior.reorder_latent(order)
        if self.decoder.hidden_is_latent:
            self.likelihood.reorder_hidden(order)

    def weight_penalty(self) -> torch.Tensor | None:
        """Sum of the parts' prices of their own weights, which count once per data set; None where there are none."""
        parts = (self.encoder, self.library, self.decoder, self.likelihood, self.prior)
        prices = [price for part in parts if (price := part.penalty()) is not None]
        return torch.stack(prices).sum() if prices else None
