"""How many hidden units carry the cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..decoders import DECODERS
from .base import Penalty, check_weight

if TYPE_CHECKING:
    import torch

    from ..cells import Dimensions
    from ..spec import ModelSpec
    from .base import Seen

SMALLEST = 1e-12
"""Least activity and share, for silent units."""


class Entropy(Penalty):
    """Entropy of the shares that units have in the activity of the decoder's last hidden layer h >= 0, times `weight`.

        H = -sum_j p_j log p_j,    p_j = sum_n h_nj / sum_nj' h_nj'

    with sums over a minibatch. It is low where few units are active, so that which of them are becomes a code for the
    cell: see :func:`scanpy_scvi.posterior.codes.code_clusters`. "Information dimension regularisation" of Amodio et al.
    2019, Nat Methods 16:1139.
    """

    def __init__(self, dims: Dimensions, *, weight: float = 1.0) -> None:
        super().__init__()
        check_weight(weight)
        self.weight = weight

    def check_use(self, spec: ModelSpec, n_cells: int) -> None:
        """Raise a ValueError where the decoder has no hidden layer."""
        if DECODERS[spec.decoder.name].hidden_is_latent:
            msg = (
                "The penalty 'entropy' is on the decoder's last hidden layer, but a linear decoder has none. Leave the "
                "penalty out, or take a model with a network on the way to genes."
            )
            raise ValueError(msg)

    def forward(self, seen: Seen) -> torch.Tensor:
        """Price of a minibatch."""
        return self.weight * share_entropy(seen.output.hidden)

    def extra_repr(self) -> str:
        """Options, for printing."""
        return f"weight={self.weight}"


def share_entropy(hidden: torch.Tensor) -> torch.Tensor:
    """Entropy of the normalised column sums of an activity that is not negative, a scalar, in nats."""
    activity = hidden.sum(0)
    p = activity / activity.sum().clamp_min(SMALLEST)
    return -(p * p.clamp_min(SMALLEST).log()).sum()  # with a slope at zero
