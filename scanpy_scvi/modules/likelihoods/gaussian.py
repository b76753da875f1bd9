"""Normal noise on log-normalised counts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from ..log_normalized import log_normalized, shares_of
from .base import Likelihood

if TYPE_CHECKING:
    from ..cells import Cells, Dimensions
    from ..decoders.base import DecoderOutput
    from ..latent_order import LatentOrder

VAR_FLOOR = 1e-4
"""Added to a variance that is learned, or that of a gene without counts would go to zero."""


class Gaussian(Likelihood):
    """y_ng = log(1 + T x_ng / l_n) ~ N(m_ng, s_g^2): m is the decoder's output itself, without a softmax.

    T is `total`. s_g is learned, one for each gene or, with `noise="shared"`, one for all; with `sd` it is that number,
    and the loss is a squared error. With `observed_only`, entries without a count are left out of the sum, as by Talwar
    et al. 2018, Sci Rep 8:16329. Its values are log densities of y, so they do not compare with those of counts.
    """

    def __init__(
        self,
        dims: Dimensions,
        *,
        n_hidden: int,
        total: float = 1e4,
        noise: Literal["gene", "shared"] = "gene",
        sd: float | None = None,
        observed_only: bool = False,
    ) -> None:
        super().__init__()
        self.n_genes, self.total, self.sd, self.observed_only = dims.n_genes, total, sd, observed_only
        n_sds = 1 if noise == "shared" else dims.n_genes
        self.log_var = None if sd is not None else nn.Parameter(torch.zeros(n_sds))

    @property
    def log_normalized_to(self) -> float:
        """T."""
        return self.total

    def var(self, output: DecoderOutput) -> torch.Tensor:
        """s_g^2, (n_genes,) or (1,)."""
        return self._var().to(output.params)

    def _var(self) -> torch.Tensor:
        """The same, where it lies."""
        if self.log_var is None:
            return torch.tensor([self.sd**2])  # type: ignore[operator]  # where there is no log_var
        return self.log_var.exp() + VAR_FLOOR

    @torch.no_grad()
    def ceiling(self, n_observed: float) -> float:
        """-1/2 log(2 pi s_g^2), summed over the genes that are scored: a density may be above one."""
        per_gene = -0.5 * (2 * math.pi * self._var()).log().mean()
        return float(per_gene) * (n_observed if self.observed_only else self.n_genes)

    def nll(self, output: DecoderOutput, log_library: torch.Tensor, cells: Cells) -> torch.Tensor:
        """Return -log p(y | z, s) summed over genes, (n,)."""
        y = log_normalized(cells.counts, log_library, self.total).to(output.params.dtype)
        var = self.var(output)
        price = 0.5 * ((y - output.params).square() / var + (2 * math.pi * var).log())
        return (price * (y > 0) if self.observed_only else price).sum(1)

    @torch.no_grad()
    def sample(self, output: DecoderOutput, log_library: torch.Tensor, cells: Cells) -> torch.Tensor:
        """Counts with the shares of a y drawn from p(y | z, s), rounded up or down at random, (n, n_genes)."""
        y = output.params + self.var(output).sqrt() * torch.randn_like(output.params)
        x = shares_of(y) * log_library.exp()[:, None]
        return (x + torch.rand_like(x)).floor()

    def log_theta(self, output: DecoderOutput, cells: Cells) -> None:
        """No dispersion."""

    def reorder_hidden(self, order: LatentOrder) -> None:
        """Do nothing: there is no head."""

    @staticmethod
    def proportions(output: DecoderOutput) -> torch.Tensor:
        """Share of each gene at y = m, (n, n_genes)."""
        return shares_of(output.params)
