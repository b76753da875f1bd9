"""A linear map of the latent space, folded into a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from .mlp import CovariateLinear


class LatentMap(NamedTuple):
    """z' = (z - centre) matrix, with `matrix` (n_latent, n_latent) invertible."""

    matrix: torch.Tensor
    centre: torch.Tensor
    """(n_latent,)."""

    @torch.no_grad()
    def of_means(self, linear: CovariateLinear) -> None:
        """Let a map that gave z give z', in place."""
        linear.bias.copy_((linear.bias - self.centre) @ self.matrix)
        linear.weight.copy_(self.matrix.T @ linear.weight)

    @torch.no_grad()
    def of_log_vars(self, linear: CovariateLinear) -> None:
        """Let a map that gave log variances of z give about those of z', in place.

        var_i' = sum_j matrix_ji^2 exp(a_j): of the logarithm, the value and the slope at the bias are taken over.
        """
        share = self.matrix.square().T * linear.bias.exp()
        total = share.sum(1, keepdim=True)
        linear.weight.copy_((share / total) @ linear.weight)
        linear.bias.copy_(total[:, 0].log())

    @torch.no_grad()
    def of_inputs(self, linear: CovariateLinear) -> None:
        """Let a map that read z read z', in place."""
        weight = linear.weight.clone()
        linear.weight.copy_(torch.linalg.solve(self.matrix, weight.T).T)
        linear.bias.add_(weight @ self.centre)
