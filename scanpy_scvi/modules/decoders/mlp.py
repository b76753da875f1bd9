"""The decoder of scVI."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..cells import Cells, Dimensions, covariate_design
from ..mlp import MLP, CovariateLinear, Norm
from ..weight_price import weight_price
from ..wide_linear import wide_linear
from .base import Decoder, DecoderOutput
from .log_means import shift_batch, start_at_log_means

if TYPE_CHECKING:
    from ..latent_map import LatentMap
    from ..latent_order import LatentOrder


class MLPDecoder(Decoder):
    """Proportions rho = softmax(W h + b), h = MLP(z, s); with `output_covariates` softmax(W h + V s + b).

    Returns the logits, so that the softmax can be fused into the likelihood. V s lets the average difference between
    batches be there from the start, so that z need not learn it first and forget it later.
    Lopez et al. 2018, Nat Methods 15:1053.
    """

    def __init__(
        self,
        dims: Dimensions,
        *,
        n_latent: int,
        n_hidden: int,
        n_layers: int,
        norm: Norm,
        norm_momentum: float = 0.1,
        dropout_rate: float = 0.0,
        inject_covariates: bool = True,
        output_covariates: bool = False,
        l2: float = 0.0,
    ) -> None:
        super().__init__()
        self.dims, self.l2 = dims, l2
        self.n_latent = n_latent
        self.n_hidden = n_hidden
        self.mlp = MLP(
            n_latent,
            dims.n_covariates,
            n_hidden=n_hidden,
            n_layers=n_layers,
            norm=norm,
            norm_momentum=norm_momentum,
            dropout_rate=dropout_rate,
            inject_covariates=inject_covariates,
        )
        self.logits = CovariateLinear(n_hidden, dims.n_genes, dims.n_covariates if output_covariates else 0)

    def forward(self, z: torch.Tensor, cells: Cells) -> DecoderOutput:
        """Decode z, (n, n_latent), with the covariates of `cells`."""
        covariates = covariate_design(cells, self.dims)
        h = self.mlp(z, covariates)
        return DecoderOutput(wide_linear(h, self.logits, covariates), h)

    def reorder_latent(self, order: LatentOrder) -> None:
        """Rename the latent dimensions, in place: the columns of the first map."""
        order.rename(self.mlp.first_linear().weight, 1)

    def map_latent(self, latent_map: LatentMap) -> None:
        """Map the latent space, in place: what is decoded stays the same."""
        latent_map.of_inputs(self.mlp.first_linear())

    def penalty(self) -> torch.Tensor | None:
        """l2 / 2 times the sum of all squared weights, biases left out: weights ~ N(0, 1 / l2), without constants."""
        return weight_price(self, self.l2)

    @torch.no_grad()
    def set_log_means(self, log_means: torch.Tensor) -> None:
        """Start from the average cell of each batch: `log_means` (n_batches, n_genes) are log mean proportions."""
        start_at_log_means(self.logits.bias, self.logits.covariate_weight, log_means)

    def shift_log_means(self, batch: int, difference: torch.Tensor) -> None:
        """Add `difference` (n_genes,) to the logits of a batch."""
        shift_batch(self.logits.covariate_weight, self.dims.n_batches, batch, difference)
