"""The posterior of z about its mode, for models without an encoder."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..training.represent import frozen, price

if TYPE_CHECKING:
    from ..modules.cells import Cells
    from ..modules.vae import VAE

STEP = 0.02
"""Half of the distance between the two gradients of which a difference is taken."""
LEAST_PRECISION = 0.1
"""Least precision in any direction: about a hundredth of what the prior usually has."""


class Laplace(NamedTuple):
    """Normal q(z | x) = N(z*, H^-1), with H the second derivatives of -log p(x, z) at its least value z*.

    MacKay 2003, Information Theory, Inference and Learning Algorithms, chapter 27.
    """

    mean: torch.Tensor
    """z*, (n, n_latent)."""
    directions: torch.Tensor
    """Eigenvectors of H in columns, (n, n_latent, n_latent)."""
    precision: torch.Tensor
    """Eigenvalues, (n, n_latent)."""

    def sample(self) -> torch.Tensor:
        """One draw, (n, n_latent)."""
        noise = torch.randn_like(self.mean) / self.precision.sqrt()
        return self.mean + (self.directions @ noise[:, :, None])[:, :, 0]

    def log_prob(self, z: torch.Tensor) -> torch.Tensor:
        """log q(z | x), (n,)."""
        along = ((z - self.mean)[:, None] @ self.directions)[:, 0]
        return -0.5 * (along.square() * self.precision + math.log(2 * math.pi) - self.precision.log()).sum(1)


def laplace(model: VAE, cells: Cells, mode: torch.Tensor) -> Laplace:
    """Approximate posterior about the modes (n, n_latent), with H from differences of gradients."""
    columns = []
    with frozen(model):
        for direction in torch.eye(mode.shape[1], device=mode.device):
            ahead, behind = (_gradient(model, cells, mode + sign * STEP * direction) for sign in (1, -1))
            columns.append((ahead - behind) / (2 * STEP))
    curvature = torch.stack(columns, dim=2)
    # not every device has eigenvalues
    precision, directions = torch.linalg.eigh(0.5 * (curvature + curvature.mT).cpu().double())
    precision = precision.clamp(min=LEAST_PRECISION)
    return Laplace(mode, directions.to(mode), precision.to(mode))


def _gradient(model: VAE, cells: Cells, z: torch.Tensor) -> torch.Tensor:
    """Slope of -log p(x, z) at z, (n, n_latent)."""
    z = z.detach().clone()
    z.requires_grad = True
    return torch.autograd.grad(price(model, cells, z).sum(), z)[0]
