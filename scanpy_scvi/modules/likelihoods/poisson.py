"""Poisson counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ...numerics import poisson
from . import formula
from .base import Likelihood
from .draws import poisson_draw
from .fused import fused_nll, uses_kernels

if TYPE_CHECKING:
    from ..cells import Cells, Dimensions
    from ..decoders.base import DecoderOutput
    from ..latent_order import LatentOrder


class Poisson(Likelihood):
    """x_ng ~ Poisson(mu_ng), mu_ng = l_n rho_ng."""

    def __init__(self, dims: Dimensions, *, n_hidden: int) -> None:
        super().__init__()

    def nll(self, output: DecoderOutput, log_library: torch.Tensor, cells: Cells) -> torch.Tensor:
        """Return -log p(x | z, l, s) summed over genes, (n,)."""
        logits = output.params
        if uses_kernels(logits):
            return fused_nll(poisson.softmax_head, cells.counts, logits, log_library)
        return formula.poisson_nll(cells.counts, formula.log_means(logits, log_library))

    @torch.no_grad()
    def sample(self, output: DecoderOutput, log_library: torch.Tensor, cells: Cells) -> torch.Tensor:
        """Counts drawn from p(x | z, l, s), (n, n_genes)."""
        return poisson_draw(formula.log_means(output.params, log_library))

    def log_theta(self, output: DecoderOutput, cells: Cells) -> None:
        """No dispersion."""

    def reorder_hidden(self, order: LatentOrder) -> None:
        """Do nothing: there is no head."""
