"""The decoder of LDVAE."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..cells import Cells, Dimensions, covariate_design
from ..mlp import CovariateLinear
from ..wide_linear import wide_linear
from .base import Decoder, DecoderOutput
from .log_means import shift_batch, start_at_log_means

if TYPE_CHECKING:
    from ..latent_order import LatentOrder


class LinearDecoder(Decoder):
    """Proportions rho = softmax(W z + V s + b), without hidden layer, normalisation or dropout.

    The loadings W are the weights of `logits`: a step of one along z_d multiplies each gene's share by exp(w_gd), up to
    what all genes have in common. With `loadings_sd`, w_gd ~ N(0, loadings_sd^2), which costs sum_gd w_gd^2 / (2
    loadings_sd^2) once per data set. Svensson et al. 2020, Bioinformatics 36:3418 (without that prior).
    """

    hidden_is_latent = True

    def __init__(self, dims: Dimensions, *, n_latent: int, loadings_sd: float | None = None) -> None:
        super().__init__()
        self.dims = dims
        self.n_latent = self.n_hidden = n_latent
        self.loadings_sd = loadings_sd
        self.logits = CovariateLinear(n_latent, dims.n_genes, dims.n_covariates)

    def forward(self, z: torch.Tensor, cells: Cells) -> DecoderOutput:
        """Decode z, (n, n_latent), with the covariates of `cells`."""
        return DecoderOutput(wide_linear(z, self.logits, covariate_design(cells, self.dims)), z)

    def penalty(self) -> torch.Tensor | None:
        """-log p(W), up to a constant."""
        return None if self.loadings_sd is None else (self.logits.weight / self.loadings_sd).square().sum() / 2

    def loadings(self) -> torch.Tensor:
        """W, (n_genes, n_latent)."""
        return self.logits.weight

    @torch.no_grad()
    def centre(self) -> None:
        """Subtract from W, V and b their means over genes, which a softmax does not see; each is otherwise free."""
        for tensor in (self.logits.weight, self.logits.bias, self.logits.covariate_weight):
            if tensor is not None:
                tensor.sub_(tensor.double().mean(0).to(tensor.dtype))

    def reorder_latent(self, order: LatentOrder) -> None:
        """Rename the latent dimensions, in place: the columns of W."""
        order.rename(self.logits.weight, 1)

    def shift_log_means(self, batch: int, difference: torch.Tensor) -> None:
        """Add `difference` (n_genes,) to the logits of a batch."""
        shift_batch(self.logits.covariate_weight, self.dims.n_batches, batch, difference)

    def set_log_means(self, log_means: torch.Tensor) -> None:
        """Start from the average cell of each batch: `log_means` (n_batches, n_genes) are log mean proportions."""
        start_at_log_means(self.logits.bias, self.logits.covariate_weight, log_means)
