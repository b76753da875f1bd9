"""Heavy-tailed noise on log-normalised counts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..log_normalized import log_normalized, shares_of
from .base import Likelihood

if TYPE_CHECKING:
    from ..cells import Cells, Dimensions
    from ..decoders.base import DecoderOutput
    from ..latent_order import LatentOrder

DOF = (0.1, 10.0)
"""Least and most degrees of freedom, as in scvis."""
START = 5.0
"""Degrees of freedom at the start."""


class StudentT(Likelihood):
    """y_ng = log(1 + T x_ng / l_n) = m_ng + s_g t_ng, t with nu_g degrees of freedom; m is the decoder's output.

    T is `total`. nu_g, within 0.1 and 10, and s_g, at least `least_sd`, are learned for each gene. Without that least,
    the density of a gene without counts in most cells has no bound: m = 0, and s goes to zero. Its values are log
    densities of y, so they do not compare with those of counts. Ding et al. 2018, Nat Commun 9:2002.
    """

    def __init__(self, dims: Dimensions, *, n_hidden: int, total: float = 1e4, least_sd: float = 0.2) -> None:
        super().__init__()
        if least_sd <= 0:
            msg = f"least_sd is {least_sd}, but a positive number was expected"
            raise ValueError(msg)
        self.total, self.least_sd = total, least_sd
        self.log_sd = nn.Parameter(torch.zeros(dims.n_genes))
        share = (START - DOF[0]) / (DOF[1] - DOF[0])
        self.dof_logits = nn.Parameter(torch.full((dims.n_genes,), math.log(share / (1 - share))))

    @property
    def log_normalized_to(self) -> float:
        """T."""
        return self.total

    def dof(self) -> torch.Tensor:
        """nu_g, (n_genes,)."""
        return DOF[0] + (DOF[1] - DOF[0]) * torch.sigmoid(self.dof_logits)

    def sd(self) -> torch.Tensor:
        """s_g, (n_genes,): the scale; the standard deviation is larger, or there is none."""
        return self.least_sd + self.log_sd.exp()

    def _levels(self) -> torch.Tensor:
        """Log density at y = m, (n_genes,)."""
        dof = self.dof()
        return torch.lgamma((dof + 1) / 2) - torch.lgamma(dof / 2) - 0.5 * (math.pi * dof).log() - self.sd().log()

    @torch.no_grad()
    def ceiling(self, n_observed: float) -> float:
        """Log density of y = m: it may be above zero."""
        return float(self._levels().sum())

    def nll(self, output: DecoderOutput, log_library: torch.Tensor, cells: Cells) -> torch.Tensor:
        """Return -log p(y | z, s) summed over genes, (n,)."""
        y = log_normalized(cells.counts, log_library, self.total).to(output.params.dtype)
        dof, sd = self.dof(), self.sd()
        scaled = ((y - output.params) / sd).square() / dof
        return (0.5 * (dof + 1) * torch.log1p(scaled)).sum(1) - self._levels().sum()

    @torch.no_grad()
    def sample(self, output: DecoderOutput, log_library: torch.Tensor, cells: Cells) -> torch.Tensor:
        """Counts with the shares of a y drawn from p(y | z, s), rounded up or down at random, (n, n_genes).

        What is drawn beyond log(1 + T), the largest y that counts can have, is put there.
        """
        m, dof = output.params, self.dof()
        gamma = torch._standard_gamma(0.5 * dof.expand_as(m).contiguous()).clamp_min(1e-30)
        noise = torch.randn_like(m) * (0.5 * dof / gamma).sqrt()  # a normal over the root of a chi-squared
        y = (m + self.sd() * noise).clamp(0, math.log1p(self.total))
        x = shares_of(y) * log_library.exp()[:, None]
        return (x + torch.rand_like(x)).floor()

    def log_theta(self, output: DecoderOutput, cells: Cells) -> None:
        """No dispersion."""

    def reorder_hidden(self, order: LatentOrder) -> None:
        """Do nothing: there is no head."""

    @staticmethod
    def proportions(output: DecoderOutput) -> torch.Tensor:
        """Share of each gene at y = m, (n, n_genes)."""
        return shares_of(output.params)
