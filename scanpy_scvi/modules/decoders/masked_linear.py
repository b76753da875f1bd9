"""The decoder of VEGA."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from ..cells import Cells, Dimensions, covariate_design
from ..mlp import grow_columns
from ..part import copy_weights
from ..wide_linear import wide_affine
from .base import Decoder, DecoderOutput
from .log_means import shift_batch, start_at_log_means

if TYPE_CHECKING:
    from ..growth import Growth
    from ..latent_order import LatentOrder

START = 0.1
"""Size of the set weights at the start, about."""


class Links(NamedTuple):
    """Which genes belong to which latent dimension; no pair twice. All (n_links,)."""

    gene: torch.Tensor
    """Gene, integer."""
    dimension: torch.Tensor
    """Latent dimension, integer."""
    scale: torch.Tensor
    """Weight of the gene in its set, float32, not zero."""


class MaskedLinearDecoder(Decoder):
    """Proportions rho = softmax((M * W) z + V s + b), the mask M being 1 where a gene belongs to a set.

    Only the weights that M allows exist, in one vector: `weight` holds u for each link of a gene to its set, and behind
    those the weights of `n_free` latent dimensions without a set, to which all genes are linked. A link's weight is
    w = c u, or c softplus(u) with `keep_signs`, c being its `scale`. So no step and no decay can make a masked weight
    other than zero. In training `latent_dropout` sets entries of z to zero, so that sets with genes in common share
    what they explain. Seninge et al. 2021, Nat Commun 12:5684.
    """

    hidden_is_latent = True
    position: torch.Tensor
    """Where each weight belongs in W, dimension after dimension, (n_links + n_free n_genes,)."""
    scale: torch.Tensor
    """c, (n_links,)."""

    def __init__(
        self,
        dims: Dimensions,
        *,
        n_latent: int,
        n_links: int,
        n_free: int = 0,
        keep_signs: bool = False,
        latent_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dims = dims
        self.n_latent = self.n_hidden = n_latent
        self.n_links = n_links
        self.n_free = n_free
        self.keep_signs = keep_signs
        weight = torch.empty(n_links + n_free * dims.n_genes)
        position = torch.empty(len(weight), dtype=torch.long)
        if not weight.is_meta:  # a model that is made to be filled needs no start, for which torch loads its compiler
            self._start(weight, position)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(dims.n_genes))
        self.covariate_weight = (
            nn.Parameter(torch.zeros(dims.n_covariates, dims.n_genes).T) if dims.n_covariates else None
        )
        self.dropout = nn.Dropout(latent_dropout)
        self.register_buffer("position", position)
        self.register_buffer("scale", torch.ones(n_links))

    def _start(self, weight: torch.Tensor, position: torch.Tensor) -> None:
        """Fill in weights to start from, and the places of those without a set."""
        links, free = weight.split([self.n_links, len(weight) - self.n_links])
        links.uniform_(0.5 * START, 1.5 * START)
        free.uniform_(-START, START)
        if self.keep_signs:
            links.expm1_().log_()
        n = self.n_latent * self.dims.n_genes
        position[: self.n_links] = torch.arange(self.n_links)
        position[self.n_links :] = torch.arange(n - len(free), n)

    @torch.no_grad()
    def set_links(self, links: Links) -> None:
        """Say which genes belong to which of the first latent dimensions."""
        self.position[: self.n_links] = links.dimension.long() * self.dims.n_genes + links.gene.long()
        self.scale.copy_(links.scale)

    def check(self) -> None:
        """Raise a ValueError where weights do not belong anywhere in W, or two of them at one place."""
        n = self.n_latent * self.dims.n_genes
        if self.n_latent > self.n_links + self.n_free:
            msg = f"n_latent is {self.n_latent}, but only {self.n_links + self.n_free} dimensions can have weights"
            raise ValueError(msg)
        if len(self.position) and not 0 <= int(self.position.min()) <= int(self.position.max()) < n:
            msg = f"the positions of weights go from {int(self.position.min())} to {int(self.position.max())} of {n}"
            raise ValueError(msg)
        if len(self.position.unique()) < len(self.position):
            msg = "the positions of weights are not all different"
            raise ValueError(msg)

    @torch.no_grad()
    def grow(self, fitted: MaskedLinearDecoder, growth: Growth) -> dict[str, torch.Tensor]:
        """Take over fitted weights and links; columns of new categories start at the weighted mean of the old ones."""
        copy_weights(self, fitted, leave=("covariate_weight",))
        return grow_columns(self.covariate_weight, fitted.covariate_weight, growth)

    def shift_log_means(self, batch: int, difference: torch.Tensor) -> None:
        """Add `difference` (n_genes,) to the logits of a batch."""
        shift_batch(self.covariate_weight, self.dims.n_batches, batch, difference)

    def forward(self, z: torch.Tensor, cells: Cells) -> DecoderOutput:
        """Decode z, (n, n_latent), with the covariates of `cells`."""
        z, covariates = self.dropout(z), covariate_design(cells, self.dims)
        return DecoderOutput(wide_affine(z, self.loadings(), self.bias, covariates, self.covariate_weight), z)

    def loadings(self) -> torch.Tensor:
        """M * W, (n_genes, n_latent)."""
        links, free = self.weight.split([self.n_links, len(self.weight) - self.n_links])
        weights = torch.cat([self.scale * (functional.softplus(links) if self.keep_signs else links), free])
        whole = weights.new_zeros(self.n_hidden * self.dims.n_genes)
        return whole.index_copy(0, self.position, weights).view(self.n_hidden, self.dims.n_genes).T

    @torch.no_grad()
    def agreement(self) -> torch.Tensor:
        """Sum over its genes of weights times scales, per latent dimension, (n_latent,); zero for those without set."""
        dimension = self.position[: self.n_links] // self.dims.n_genes
        sums = self.scale.new_zeros(self.n_hidden, dtype=torch.float64)
        products = self.loadings().T.reshape(-1)[self.position[: self.n_links]] * self.scale
        return sums.index_add(0, dimension, products.double())

    @torch.no_grad()
    def centre(self) -> None:
        """Subtract their means over genes, which a softmax does not see, from V, b, and dimensions without a set."""
        free = self.weight[self.n_links :].view(self.n_free, self.dims.n_genes).T
        for tensor in (free, self.bias, self.covariate_weight):
            if tensor is not None:
                tensor.sub_(tensor.double().mean(0).to(tensor.dtype))

    @torch.no_grad()
    def reorder_latent(self, order: LatentOrder) -> None:
        """Rename the latent dimensions, in place: weights keep their places in memory and get new ones in W."""
        new = torch.empty_like(order.order)
        new[order.order] = torch.arange(len(new))
        n_genes = self.dims.n_genes
        dimension = new.to(self.position.device)[self.position // n_genes]
        self.position.copy_(dimension * n_genes + self.position % n_genes)
        signs = order.sign.to(self.weight.device)[dimension]
        if self.keep_signs:  # those of links are the scales'
            self.scale.mul_(signs[: self.n_links])
            signs[: self.n_links] = 1
        self.weight.mul_(signs)

    def set_log_means(self, log_means: torch.Tensor) -> None:
        """Start from the average cell of each batch: `log_means` (n_batches, n_genes) are log mean proportions."""
        start_at_log_means(self.bias, self.covariate_weight, log_means)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"n_links={self.n_links}, n_free={self.n_free}, keep_signs={self.keep_signs}"
