"""What a likelihood is."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import torch

from ..part import ModelPart

if TYPE_CHECKING:
    from ..cells import Cells
    from ..decoders.base import DecoderOutput
    from ..latent_order import LatentOrder


class Likelihood(ModelPart):
    """Part that scores counts, and draws them. It owns the softmax, theta, and the heads that only it needs."""

    @abstractmethod
    def nll(self, output: DecoderOutput, log_library: torch.Tensor, cells: Cells) -> torch.Tensor:
        """Return -log p(x | z, l, s) summed over genes, (n,)."""

    @abstractmethod
    def sample(self, output: DecoderOutput, log_library: torch.Tensor, cells: Cells) -> torch.Tensor:
        """Counts drawn from p(x | z, l, s), (n, n_genes); the randomness is torch's own."""

    @abstractmethod
    def log_theta(self, output: DecoderOutput, cells: Cells) -> torch.Tensor | None:
        """Log inverse dispersion, broadcastable to (n, n_genes); None where there is none."""

    def set_log_theta(self, log_theta: torch.Tensor) -> None:
        """Start from the inverse dispersions `log_theta` (n_genes,), where the likelihood has them."""

    @property
    def reads_labels(self) -> bool:
        """Whether the labels of cells matter."""
        return False

    def reorder_hidden(self, order: LatentOrder) -> None:
        """Rename the units of the hidden layer, in place, where that is z itself."""
        raise NotImplementedError

    @property
    def log_normalized_to(self) -> float | None:
        """T, where the decoder gives the mean of log(1 + T x / l); None where it gives logits of shares."""
        return None

    def ceiling(self, n_observed: float) -> float:
        """Log likelihood of a cell that is reconstructed exactly: what a bound is measured from. 0 for probabilities.

        `n_observed` is the mean number of genes with a count, where those alone are scored.
        """
        return 0.0

    inflates_zeros = False
    """Whether the expected share of a gene in the counts differs from its proportion rho."""

    def expected_shares(self, output: DecoderOutput) -> torch.Tensor:
        """Expected count over the library size, (n, n_genes): rho, less what zero inflation takes."""
        return self.proportions(output)

    @staticmethod
    def proportions(output: DecoderOutput) -> torch.Tensor:
        """Expected share of each gene, rho = softmax(logits), (n, n_genes)."""
        return torch.softmax(output.params, dim=1)
