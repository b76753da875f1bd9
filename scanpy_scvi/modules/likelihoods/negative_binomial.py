"""Negative binomial counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ...numerics import negative_binomial
from . import formula
from .base import Likelihood
from .dispersion import Dispersion, DispersionKind
from .draws import nb_draw
from .fused import fused_nll, uses_kernels

if TYPE_CHECKING:
    from ..cells import Cells, Dimensions
    from ..decoders.base import DecoderOutput
    from ..latent_order import LatentOrder


class NegativeBinomial(Likelihood):
    """x_ng ~ NB(mean mu_ng, inverse dispersion theta), variance mu + mu^2 / theta, mu_ng = l_n rho_ng."""

    def __init__(self, dims: Dimensions, *, n_hidden: int, dispersion: DispersionKind = "gene") -> None:
        super().__init__()
        self.dispersion = Dispersion(dims, kind=dispersion, n_hidden=n_hidden)

    def nll(self, output: DecoderOutput, log_library: torch.Tensor, cells: Cells) -> torch.Tensor:
        """Return -log p(x | z, l, s) summed over genes, (n,)."""
        logits, log_theta = output.params, self.dispersion(output.hidden, cells)
        if uses_kernels(logits):
            return fused_nll(negative_binomial.softmax_head, cells.counts, logits, log_library, log_theta)
        return formula.nb_nll(cells.counts, formula.log_means(logits, log_library), log_theta.per_cell())

    @torch.no_grad()
    def sample(self, output: DecoderOutput, log_library: torch.Tensor, cells: Cells) -> torch.Tensor:
        """Counts drawn from p(x | z, l, s), (n, n_genes)."""
        return nb_draw(formula.log_means(output.params, log_library), self.log_theta(output, cells))

    @property
    def reads_labels(self) -> bool:
        """Whether there is a dispersion per label."""
        return self.dispersion.kind == "gene-label"

    def log_theta(self, output: DecoderOutput, cells: Cells) -> torch.Tensor:
        """Log inverse dispersion, broadcastable to (n, n_genes)."""
        return self.dispersion(output.hidden, cells).per_cell()

    def set_log_theta(self, log_theta: torch.Tensor) -> None:
        """Start from the inverse dispersions `log_theta` (n_genes,)."""
        self.dispersion.set_log_theta(log_theta)

    def shift_log_theta(self, shift: torch.Tensor) -> None:
        """Add `shift` (n_genes,) to every log theta of a gene."""
        self.dispersion.shift_log_theta(shift)

    def reorder_hidden(self, order: LatentOrder) -> None:
        """Rename the units of the hidden layer, in place, where that is z itself."""
        self.dispersion.reorder_hidden(order)
