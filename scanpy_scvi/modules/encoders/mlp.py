"""The amortised encoder of scVI, with a posterior variance or without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..cells import Cells, Dimensions, covariate_design
from ..mlp import MLP, CovariateLinear, Norm
from ..weight_price import weight_price
from .base import Encoder, LatentPosterior
from .inputs import thinned
from .moments import posterior_moments

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..growth import Growth
    from ..latent_map import LatentMap
    from ..latent_order import LatentOrder


class MLPEncoder(Encoder):
    """Amortised posterior q(z | x, s) = N(m(h), diag(exp(a(h)) + 1e-4)), h = MLP(log(1 + c x)[, s]).

    `m` is `mean`, `a` is `log_var`; with `deterministic`, z is the point m(h). The covariates s enter only with
    `encode_covariates`. c is 1 by default. With `input_total` T it is T over the cell's total. With `scale_input`,
    which a model has that grew by batches, log c is the batch's entry of `log_input_scale`: batches of the fit have 0;
    shallow ones that were mapped to it look as deep by theirs. With `corruption` p, training keeps each molecule of a
    cell with probability 1 - p, and c makes up for it. Lopez et al. 2018, Nat Methods 15:1053.
    """

    log_input_scale: torch.Tensor | None
    log_var: CovariateLinear | None

    def __init__(
        self,
        dims: Dimensions,
        *,
        n_latent: int,
        n_hidden: int,
        n_layers: int,
        dropout_rate: float,
        norm: Norm,
        norm_momentum: float = 0.1,
        encode_covariates: bool = False,
        inject_covariates: bool = True,
        scale_input: bool = False,
        deterministic: bool = False,
        input_total: float | None = None,
        corruption: float = 0.0,
        l2: float = 0.0,
    ) -> None:
        super().__init__()
        self.dims, self.input_total, self.corruption, self.l2 = dims, input_total, corruption, l2
        self.register_buffer("log_input_scale", torch.zeros(dims.n_batches) if scale_input else None)
        n_covariates = dims.n_covariates if encode_covariates else 0
        self.encode_covariates = encode_covariates
        self.mlp = MLP(
            dims.n_genes,
            n_covariates,
            n_hidden=n_hidden,
            n_layers=n_layers,
            norm=norm,
            norm_momentum=norm_momentum,
            dropout_rate=dropout_rate,
            inject_covariates=inject_covariates,
        )
        self.mean = CovariateLinear(n_hidden, n_latent)
        self.log_var = None if deterministic else CovariateLinear(n_hidden, n_latent)

    @property
    def gives_points(self) -> bool:
        """Whether it is deterministic."""
        return self.log_var is None

    def forward(self, cells: Cells) -> LatentPosterior:
        """Posterior of z for n cells."""
        covariates = covariate_design(cells, self.dims) if self.encode_covariates else cells.continuous[:, :0]
        scale = self.input_scale(cells)
        counts = thinned(cells.counts, self.corruption) if self.training and self.corruption else cells.counts
        h = self.mlp(counts if scale is None else counts.scaled(scale), covariates)
        if self.log_var is None:
            return LatentPosterior(self.mean(h), None)
        return posterior_moments(h, self.mean, self.log_var)

    def reorder_latent(self, order: LatentOrder) -> None:
        """Rename the latent dimensions, in place: the rows of both last maps."""
        for linear, signed in ((self.mean, True), (self.log_var, False)):
            if linear is not None:
                order.rename(linear.weight, 0, signed=signed)
                order.rename(linear.bias, 0, signed=signed)

    def map_latent(self, latent_map: LatentMap) -> None:
        """Map the latent space, in place: means exactly, variances about, as they stay diagonal."""
        latent_map.of_means(self.mean)
        if self.log_var is not None:
            latent_map.of_log_vars(self.log_var)

    def penalty(self) -> torch.Tensor | None:
        """l2 / 2 times the sum of all squared weights, biases left out."""
        return weight_price(self, self.l2)

    def input_scale(self, cells: Cells) -> torch.Tensor | None:
        """c, (n,), as it is outside of training."""
        if self.log_input_scale is None or self.input_total is not None:
            return super().input_scale(cells)
        return self.log_input_scale.exp()[cells.batch]

    @torch.no_grad()
    def set_log_input_scale(self, batch: int, log_scale: float) -> None:
        """Choose log c of a batch."""
        if self.log_input_scale is not None:
            self.log_input_scale[batch] = log_scale

    @staticmethod
    def grown_options(options: Mapping[str, Any], growth: Growth) -> Mapping[str, Any]:
        """Return options with a scale for each batch, if there are new ones and depth is not normalised away."""
        grows = growth.new.n_batches > growth.old.n_batches and options.get("input_total") is None
        return {**options, "scale_input": True} if grows else options

    @torch.no_grad()
    def grow(self, fitted: MLPEncoder, growth: Growth) -> dict[str, torch.Tensor]:
        """Keep the scales of old batches; those of new ones are 1 until they are set, and not learned by gradient."""
        if self.log_input_scale is not None and fitted.log_input_scale is not None:
            self.log_input_scale[: growth.old.n_batches] = fitted.log_input_scale
        return {}

    @torch.no_grad()
    def set_input_means(self, means: torch.Tensor) -> None:
        """Start with batches centred: in the first layer, W log(1 + x) + V s, V_b = -W (mean_b - mean)."""
        linear = self.mlp.first_linear()
        if linear.covariate_weight is not None and self.dims.n_batches > 1:
            gaps = (means - means.mean(0)).to(linear.weight.device)
            linear.covariate_weight[:, : self.dims.n_batches] = -linear.weight @ gaps.T

    @torch.no_grad()
    def shift_input(self, batch: int, difference: torch.Tensor) -> None:
        """Take `difference` (n_genes,) off log(1 + x) of a batch: V_b changes by -W difference."""
        linear = self.mlp.first_linear()
        if linear.covariate_weight is not None and self.dims.n_batches > 1:
            linear.covariate_weight[:, batch] -= linear.weight @ difference.to(linear.weight)

    def learns_new(self, parameter: str) -> bool:
        """Only what enters the first layer: it shifts the input, and deeper columns mixed new batches less well."""
        return parameter.startswith("mlp.blocks.0.")
