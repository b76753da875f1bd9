"""The linear encoder."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..cells import Cells, Dimensions, covariate_design
from ..mlp import CovariateLinear
from ..weight_price import weight_price
from .base import Encoder, LatentPosterior
from .inputs import thinned

if TYPE_CHECKING:
    from ..latent_order import LatentOrder


class LinearEncoder(Encoder):
    """Posterior q(z | x, s) = N(m, diag(exp(a))), m = k (A log(1 + c x) [+ V s] + b); a point m with `deterministic`.

    The variance is the same for all cells, which is what the posterior of a linear Gaussian model has: together with a
    linear decoder this is probabilistic principal component analysis, and as a point PCA. c is 1, or `input_total` over
    the cell's total; `corruption` is that of :class:`.MLPEncoder`. k is one over the root of the number of genes: Adam
    moves all weights by about as much, and without k its step would move z the farther the more genes there are.
    Prices are those of k A. Lucas et al. 2019, arXiv 1911.02469.
    """

    log_var: nn.Parameter | None

    def __init__(
        self,
        dims: Dimensions,
        *,
        n_latent: int,
        deterministic: bool = False,
        encode_covariates: bool = False,
        input_total: float | None = None,
        corruption: float = 0.0,
        l2: float = 0.0,
    ) -> None:
        super().__init__()
        self.dims, self.input_total, self.corruption, self.l2 = dims, input_total, corruption, l2
        self.encode_covariates = encode_covariates
        self.gain = 1 / math.sqrt(dims.n_genes)
        self.mean = CovariateLinear(dims.n_genes, n_latent, dims.n_covariates if encode_covariates else 0)
        self.log_var = None if deterministic else nn.Parameter(torch.zeros(n_latent))

    @property
    def gives_points(self) -> bool:
        """Whether it is deterministic."""
        return self.log_var is None

    def forward(self, cells: Cells) -> LatentPosterior:
        """Posterior of z for n cells."""
        scale = self.input_scale(cells)
        counts = thinned(cells.counts, self.corruption) if self.training and self.corruption else cells.counts
        counts = counts if scale is None else counts.scaled(scale)
        mean = self.gain * self.mean(counts, covariate_design(cells, self.dims) if self.encode_covariates else None)
        return LatentPosterior(mean, None if self.log_var is None else self.log_var.exp().expand_as(mean))

    @torch.no_grad()
    def set_input_means(self, means: torch.Tensor) -> None:
        """Start with cells centred, those of each batch about their own mean: b = -A mean, V_b = -A (mean_b - mean)."""
        overall = means.mean(0)
        self.mean.bias.copy_(-self.mean.weight @ overall.to(self.mean.weight))
        if self.mean.covariate_weight is not None and self.dims.n_batches > 1:
            gaps = (means - overall).to(self.mean.weight)
            self.mean.covariate_weight[:, : self.dims.n_batches] = -self.mean.weight @ gaps.T

    @torch.no_grad()
    def shift_input(self, batch: int, difference: torch.Tensor) -> None:
        """Take `difference` (n_genes,) off log(1 + c x) of a batch: V_b changes by -A difference."""
        if self.mean.covariate_weight is not None and self.dims.n_batches > 1:
            self.mean.covariate_weight[:, batch] -= self.mean.weight @ difference.to(self.mean.weight)

    def penalty(self) -> torch.Tensor | None:
        """l2 / 2 times the sum of all squared weights, k taken into them."""
        return weight_price(self, self.l2 * self.gain**2)

    def reorder_latent(self, order: LatentOrder) -> None:
        """Rename the latent dimensions, in place."""
        order.rename(self.mean.weight, 0)
        order.rename(self.mean.bias, 0)
        if self.mean.covariate_weight is not None:
            order.rename(self.mean.covariate_weight, 0)
        if self.log_var is not None:
            order.rename(self.log_var, 0, signed=False)
