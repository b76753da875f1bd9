"""Zero-inflated negative binomial counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ...numerics import zero_inflated
from ..mlp import CovariateLinear
from ..wide_linear import wide_linear
from . import formula
from .base import Likelihood
from .dispersion import Dispersion, DispersionKind
from .draws import nb_draw
from .fused import fused_nll, uses_kernels

if TYPE_CHECKING:
    from ..cells import Cells, Dimensions
    from ..decoders.base import DecoderOutput
    from ..latent_order import LatentOrder


class ZeroInflatedNegativeBinomial(Likelihood):
    """x_ng = 0 with probability pi_ng = sigmoid(h_ng), else NB(mu_ng, theta).

    The logits h (`zero_logits`) are a linear head on the decoder's last hidden layer.
    """

    def __init__(self, dims: Dimensions, *, n_hidden: int, dispersion: DispersionKind = "gene") -> None:
        super().__init__()
        self.dispersion = Dispersion(dims, kind=dispersion, n_hidden=n_hidden)
        self.zero_logits = CovariateLinear(n_hidden, dims.n_genes)

    def nll(self, output: DecoderOutput, log_library: torch.Tensor, cells: Cells) -> torch.Tensor:
        """Return -log p(x | z, l, s) summed over genes, (n,)."""
        logits, log_theta = output.params, self.dispersion(output.hidden, cells)
        h = wide_linear(output.hidden, self.zero_logits)
        if uses_kernels(logits):
            return fused_nll(zero_inflated.softmax_head, cells.counts, logits, log_library, log_theta, h)
        return formula.zinb_nll(cells.counts, formula.log_means(logits, log_library), log_theta.per_cell(), h)

    @torch.no_grad()
    def sample(self, output: DecoderOutput, log_library: torch.Tensor, cells: Cells) -> torch.Tensor:
        """Counts drawn from p(x | z, l, s), (n, n_genes)."""
        counts = nb_draw(formula.log_means(output.params, log_library), self.log_theta(output, cells))
        inflated = torch.rand_like(counts) < torch.sigmoid(wide_linear(output.hidden, self.zero_logits))
        return counts.masked_fill_(inflated, 0)

    @property
    def reads_labels(self) -> bool:
        """Whether there is a dispersion per label."""
        return self.dispersion.kind == "gene-label"

    def log_theta(self, output: DecoderOutput, cells: Cells) -> torch.Tensor:
        """Log inverse dispersion, broadcastable to (n, n_genes)."""
        return self.dispersion(output.hidden, cells).per_cell()

    inflates_zeros = True

    def expected_shares(self, output: DecoderOutput) -> torch.Tensor:
        """(1 - pi) rho."""
        return self.proportions(output) * torch.sigmoid(-wide_linear(output.hidden, self.zero_logits))

    def set_log_theta(self, log_theta: torch.Tensor) -> None:
        """Start from the inverse dispersions `log_theta` (n_genes,)."""
        self.dispersion.set_log_theta(log_theta)

    def reorder_hidden(self, order: LatentOrder) -> None:
        """Rename the units of the hidden layer, in place, where that is z itself."""
        self.dispersion.reorder_hidden(order)
        order.rename(self.zero_logits.weight, 1)
