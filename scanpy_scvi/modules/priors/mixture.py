"""A mixture of normals as prior."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from sklearn.cluster import KMeans
from torch import nn
from torch.nn import functional

from ..part import normal_start
from .base import Prior

if TYPE_CHECKING:
    from ..cells import Cells, Dimensions
    from ..encoders.base import LatentPosterior
    from ..latent_order import LatentOrder

MOST_CLUSTERED = 20_000
"""Cells that starts are found in, at most."""
START_SD, START_RADIUS = 0.5, 0.3
"""Standard deviation of the components at the start, and of their means: so near to each other that all get cells."""


class GaussianMixture(Prior):
    """Prior p(z) = sum_k pi_k N(z; mu_k, diag s_k^2) with learned pi, mu and s.

    The component of a cell is summed over, not inferred, so that the decoder runs once and no q(k | x) is needed:

        KL(q || p) = -1/2 sum_d (1 + log 2 pi v_d) - E_q log p(z)
        log p(z) = logsumexp_k [log pi_k + log N(z; mu_k, diag s_k^2)]

    with the negative entropy of q = N(m, v) in closed form, and E_q log p at the draw of z that is decoded. A point has
    no entropy, and the price of it is -log p(z).

    Hyper-priors, each counted once per data set, up to constants:

        log p(pi) = (concentration - 1) sum_k log pi_k                           Dirichlet
        log p(mu_k) = -log(1 + exp(sharpness (|mu_k| / radius - 1)))              softball
        -log s_kd^2 ~ N(-2 log sd, sd_width^2)

    Grønbech et al. 2020, Bioinformatics 36:4415; the hyper-priors: Schuster and Krogh 2023, Bioinformatics 39:btad497.
    """

    def __init__(
        self,
        dims: Dimensions,
        *,
        n_latent: int,
        n_components: int,
        concentration: float = 1.0,
        radius: float | None = None,
        sharpness: float = 5.0,
        sd: float = START_SD,
        sd_width: float | None = None,
    ) -> None:
        super().__init__()
        self.concentration, self.radius, self.sharpness = concentration, radius, sharpness
        self.sd, self.sd_width = sd, sd_width
        self.logits = nn.Parameter(torch.zeros(n_components))
        self.means = nn.Parameter(normal_start(n_components, n_latent, sd=START_RADIUS))
        self.log_sd = nn.Parameter(torch.full((n_components, n_latent), math.log(sd)))

    def kl(self, posterior: LatentPosterior, z: torch.Tensor, cells: Cells) -> torch.Tensor:
        """KL at the draw z, (n,); -log p(z) for a point."""
        cross = -self.log_prob(z, cells)
        if posterior.var is None:
            return cross
        return cross - 0.5 * (1 + (2 * math.pi * posterior.var).log()).sum(1)

    def log_prob(self, z: torch.Tensor, cells: Cells) -> torch.Tensor:
        """log p(z), (n,)."""
        return torch.logsumexp(self.log_joint(z), 1)

    def log_joint(self, z: torch.Tensor) -> torch.Tensor:
        """log pi_k + log N(z; mu_k, diag s_k^2), (n, n_components)."""
        scaled = (z[:, None] - self.means) * torch.exp(-self.log_sd)
        level = torch.log_softmax(self.logits, 0) - self.log_sd.sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)
        return level - 0.5 * scaled.square().sum(2)

    def responsibilities(self, z: torch.Tensor) -> torch.Tensor:
        """p(k | z), (n, n_components)."""
        return torch.softmax(self.log_joint(z), 1)

    @torch.no_grad()
    def set_places(self, z: torch.Tensor) -> None:
        """Start with the components at clusters of the cells (k-means), with their spread."""
        some = z.cpu().numpy()[:MOST_CLUSTERED]
        k = min(len(self.means), len(some))
        found = KMeans(k, n_init=1, random_state=int(torch.randint(2**31, ()))).fit(some)
        self.means[:k] = torch.from_numpy(found.cluster_centers_).to(self.means)
        self.log_sd.fill_(0.5 * math.log(max(found.inertia_ / some.size, 1e-6)))

    def centres(self, n_latent: int) -> torch.Tensor:
        """The means, (n_components, n_latent)."""
        return self.means.detach()

    def penalty(self) -> torch.Tensor | None:
        """Minus the logarithm of the hyper-priors, without constants; None where all are flat."""
        terms = []
        if self.concentration != 1:
            terms.append((1 - self.concentration) * torch.log_softmax(self.logits, 0).sum())
        if self.radius is not None:
            # a norm has no slope at zero
            norm = (self.means.square().sum(1) + 1e-12).sqrt()
            terms.append(functional.softplus(self.sharpness * (norm / self.radius - 1)).sum())
        if self.sd_width is not None:
            terms.append(2 * ((self.log_sd - math.log(self.sd)) / self.sd_width).square().sum())
        return torch.stack(terms).sum() if terms else None

    def reorder_latent(self, order: LatentOrder) -> None:
        """Rename the latent dimensions, in place."""
        order.rename(self.means, 1)
        order.rename(self.log_sd, 1, signed=False)

    @torch.no_grad()
    def settle(self) -> None:
        """Number the components by weight, the heaviest first."""
        order = self.logits.argsort(descending=True, stable=True)
        for parameter in self.parameters():
            parameter.copy_(parameter[order])

    def extra_repr(self) -> str:
        """Sizes and hyper-priors, for printing."""
        n_components, n_latent = self.means.shape
        text = f"{n_components}, {n_latent}, concentration={self.concentration}"
        text += "" if self.radius is None else f", radius={self.radius:.3g}, sharpness={self.sharpness}"
        return text + ("" if self.sd_width is None else f", sd={self.sd:.3g}, sd_width={self.sd_width:.3g}")
