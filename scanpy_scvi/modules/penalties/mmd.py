"""Maximum mean discrepancy between batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..cells import one_hot
from .base import Penalty, check_weight
from .distances import diagonal, squared_distances

if TYPE_CHECKING:
    from ..cells import Dimensions
    from ..spec import ModelSpec
    from .base import Seen

SMALLEST = 1e-12
"""Least squared width, for cells that all lie in one place."""


class MMD(Penalty):
    """Maximum mean discrepancy of z between batches, the mean over all pairs of batches a and b, times `weight`.

        MMD_ab^2 = mean_{i != i'} k(a_i, a_i') + mean_{j != j'} k(b_j, b_j') - 2 mean_ij k(a_i, b_j)
        k(z, z') = mean_w exp(-|z - z'|^2 / 2 w^2)

    It is unbiased, zero on average where batches are alike, and so may be negative (Gretton et al. 2012, J Mach
    Learn Res 13:723). The widths w are m / 2, m, 2m for the median distance m between cells of the minibatch, and more
    such powers of two with larger `n_widths`; m is a number to the gradient. Batches with less than two cells in a
    minibatch are left out of it.
    """

    def __init__(self, dims: Dimensions, *, weight: float = 10.0, n_widths: int = 3) -> None:
        super().__init__()
        check_weight(weight)
        self.dims, self.weight, self.n_widths = dims, weight, n_widths

    def check_use(self, spec: ModelSpec, n_cells: int) -> None:
        """Raise a ValueError where there is but one batch."""
        if spec.dims.n_batches < 2:
            msg = (
                "The penalty 'mmd' compares batches, but there is only one. Pass `batch_key` with a column of `obs` "
                "that has several, or leave the penalty out."
            )
            raise ValueError(msg)

    def forward(self, seen: Seen) -> torch.Tensor:
        """Price of a minibatch; zero where it has less than two batches."""
        return self.weight * mean_discrepancy(seen.z, seen.cells.batch, self.dims.n_batches, self.n_widths)

    def extra_repr(self) -> str:
        """Options, for printing."""
        return f"weight={self.weight}, n_widths={self.n_widths}"


def mean_discrepancy(z: torch.Tensor, batch: torch.Tensor, n_batches: int, n_widths: int) -> torch.Tensor:
    """Mean of MMD^2 over the pairs of batches with two cells or more, a scalar; zero where there are none."""
    kernel = rbf(squared_distances(z), n_widths)
    member = one_hot(batch, n_batches).to(z.dtype)
    n = member.sum(0)
    sums = member.T @ kernel @ member
    within = (sums.diagonal() - n) / (n * (n - 1)).clamp_min(1)  # without cells and themselves, where the kernel is 1
    across = sums / (n[:, None] * n).clamp_min(1)
    there = n >= 2
    pairs = (there[:, None] & there).triu(1)
    discrepancy = within[:, None] + within - 2 * across
    return (discrepancy * pairs).sum() / pairs.sum().clamp_min(1)


def rbf(squared: torch.Tensor, n_widths: int) -> torch.Tensor:
    """Mean over widths of exp(-d^2 / 2 w^2), (n, n)."""
    scaled = squared / (2 * squared.detach()[~diagonal(squared)].median().clamp_min(SMALLEST))
    powers = range(-(n_widths // 2), n_widths - n_widths // 2)
    return torch.stack([torch.exp(-scaled * 4.0**-power) for power in powers]).mean(0)
