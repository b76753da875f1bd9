"""What a decoder is."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, NamedTuple

from ..part import ModelPart

if TYPE_CHECKING:
    import torch

    from ..cells import Cells, Dimensions
    from ..latent_map import LatentMap
    from ..latent_order import LatentOrder


class DecoderOutput(NamedTuple):
    """What a likelihood needs of the decoder."""

    params: torch.Tensor
    """Logits of the proportions rho for count likelihoods, means otherwise, (n, n_genes)."""
    hidden: torch.Tensor
    """Last hidden layer (z itself for linear decoders), (n, n_hidden), for heads that a likelihood adds."""


class Decoder(ModelPart):
    """Part that maps z and covariates to the parameters of the expression of all genes."""

    dims: Dimensions
    """Sizes of the data."""
    n_latent: int
    """Dimensions of z."""
    n_hidden: int
    """Width of `DecoderOutput.hidden`."""
    hidden_is_latent = False
    """Whether that is z itself."""

    @abstractmethod
    def forward(self, z: torch.Tensor, cells: Cells) -> DecoderOutput:
        """Decode z, (n, n_latent), with the covariates of `cells`."""

    def loadings(self) -> torch.Tensor | None:
        """Weight of each latent dimension on each gene's logit, (n_genes, n_latent), where the map is linear."""
        return None

    def centre(self) -> None:
        """Subtract means over genes that a softmax does not see, where nothing else says what they are, in place."""

    def map_latent(self, latent_map: LatentMap) -> None:
        """Map the latent space, in place: what is decoded stays the same."""
        raise NotImplementedError

    def reorder_latent(self, order: LatentOrder) -> None:
        """Rename the latent dimensions, in place."""
        raise NotImplementedError

    @abstractmethod
    def set_log_means(self, log_means: torch.Tensor) -> None:
        """Start from the average cell of each batch: `log_means` (n_batches, n_genes) are log mean proportions."""

    def shift_log_means(self, batch: int, difference: torch.Tensor) -> None:
        """Add `difference` (n_genes,) to the log proportions of a batch, as far as batches enter the output."""
