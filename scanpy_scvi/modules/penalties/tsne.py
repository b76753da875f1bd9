"""Keep neighbours: the loss of t-SNE."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ...numerics.perplexity import joint_probabilities
from ..log_normalized import log_normalized
from .base import Penalty, check_weight
from .distances import diagonal, squared_distances

if TYPE_CHECKING:
    from ..cells import Cells, Dimensions
    from ..spec import ModelSpec
    from .base import Axes, Seen

CELLS_PER_NEIGHBOUR = 3
"""Cells of a minibatch for each neighbour that perplexity counts, at least."""


class TSNE(Penalty):
    """Divergence of neighbourhoods in z from those in the data, within a minibatch, times `weight`.

        KL(P || Q) = sum_{i != j} p_ij log p_ij / q_ij,    q_ij ~ (1 + |z_i - z_j|^2 / nu)^-(nu + 1)/2

    P are the joint probabilities of t-SNE at a `perplexity` (:mod:`scanpy_scvi.numerics.perplexity`), from distances
    between cells in the first `n_pcs` principal components of log-normalised counts; nu is the `dof` of the Student-t
    kernel, by default n_latent - 1 and at least 1. Van der Maaten 2009, AISTATS 5:384; Ding et al. 2018, Nat Commun
    9:2002.
    """

    def __init__(
        self,
        dims: Dimensions,
        *,
        weight: float = 100.0,
        perplexity: float = 10.0,
        n_pcs: int = 50,
        dof: float | None = None,
    ) -> None:
        super().__init__()
        check_weight(weight)
        if perplexity <= 1 or (dof is not None and dof <= 0):
            msg = f"perplexity is {perplexity} and dof {dof}, but more than 1 and more than 0 were expected"
            raise ValueError(msg)
        self.weight, self.perplexity, self.dof = weight, perplexity, dof
        self.n_axes, self.total = n_pcs, 1.0
        self.axes: torch.Tensor | None
        self.register_buffer("axes", None, persistent=False)

    def check_use(self, spec: ModelSpec, n_cells: int) -> None:
        """Raise a ValueError where minibatches have too few cells for the perplexity."""
        if n_cells < CELLS_PER_NEIGHBOUR * self.perplexity:
            msg = (
                f"The penalty 'tsne' has perplexity {self.perplexity:g}, for which minibatches should have "
                f"{CELLS_PER_NEIGHBOUR * self.perplexity:g} cells or more, but the smallest has {n_cells}. Lower its "
                "`perplexity`, or raise `batch_size`."
            )
            raise ValueError(msg)

    def set_axes(self, axes: Axes) -> None:
        """Take the principal axes of the data."""
        self.axes, self.total = axes

    def forward(self, seen: Seen) -> torch.Tensor:
        """Price of a minibatch."""
        dof = self.dof or max(seen.z.shape[1] - 1, 1)
        return self.weight * divergence(self._joint(seen.cells).to(seen.z), seen.z, dof)

    @torch.no_grad()
    def _joint(self, cells: Cells) -> torch.Tensor:
        """P, (n, n), float64, on the CPU."""
        if self.axes is None:
            msg = "The penalty 'tsne' was not given the principal axes of the data."
            raise RuntimeError(msg)
        y = log_normalized(cells.counts, cells.log_total, self.total) @ self.axes
        return torch.from_numpy(joint_probabilities(squared_distances(y.cpu().double()).numpy(), self.perplexity))

    def extra_repr(self) -> str:
        """Options, for printing."""
        return f"weight={self.weight}, perplexity={self.perplexity}, n_pcs={self.n_axes}, dof={self.dof}"


def divergence(p: torch.Tensor, z: torch.Tensor, dof: float) -> torch.Tensor:
    """KL(P || Q) in nats, a scalar; p are probabilities of pairs, (n, n), that sum to one."""
    log_kernel = -0.5 * (dof + 1) * torch.log1p(squared_distances(z) / dof)
    log_total = torch.logsumexp(log_kernel.masked_fill(diagonal(z), -torch.inf).flatten(), 0)
    return log_total - (p * log_kernel).sum() - torch.special.entr(p).sum()
