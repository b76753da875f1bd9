"""The prior of sVAE+: a perturbation shifts few latent dimensions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from ..part import normal_start
from .base import Prior

if TYPE_CHECKING:
    from ..cells import Cells, Dimensions
    from ..encoders.base import LatentPosterior
    from ..latent_order import LatentOrder

Gates = Literal["exact", "gumbel", "open"]
SHIFT_SD = 0.1
"""Standard deviation of the shifts at the start."""
OPEN = 5.0
"""Logit of a gate at the start."""
HARD = 40.0
"""Logit of a gate that is open for good; float32 has nothing between its probability and one."""


class PerturbationLinks(NamedTuple):
    """Which perturbations a label stands for; none for a control, several for a combination. Both (n_links,)."""

    label: torch.Tensor
    """Label, integer."""
    perturbation: torch.Tensor
    """Perturbation, integer."""


class SparseShift(Prior):
    """Prior p(z | D) = N(sum_{k in D} gamma_k * mu_k, I) of a cell with the perturbations D.

    The gates gamma_kj are binary, and mostly 0: a perturbation moves few of the latent dimensions. With q_kj the
    probability that a gate is open, and s = sum_{k in D} q_k mu_k, the KL of N(m, diag v) averages over the gates to

        KL(N(m, v) || N(0, I)) + sum_j [ 1/2 s_j^2 + 1/2 sum_{k in D} q_kj (1 - q_kj) mu_kj^2 - m_j s_j ]

    since it is quadratic in the shift, and gates are independent of each other: exact, without noise ("exact").
    "gumbel" is the straight-through Gumbel-sigmoid draw of the original instead, one for each cell; "open" leaves all
    gates open. Prices, once per data set: -price_kj log(1 - q_kj), as of a prior Beta(1, 1 + price) of q_kj ("log"); or
    price_kj q_kj ("linear"). A label without perturbations is a control and has no shift.
    Lopez et al. 2023, CLeaR, PMLR 213:662 (arXiv 2211.03553).
    """

    logit: torch.Tensor
    """Log odds of an open gate, (n_perturbations, n_latent)."""
    price: torch.Tensor
    """Price of each gate, nats, (n_perturbations, n_latent)."""
    label: torch.Tensor
    perturbation: torch.Tensor

    def __init__(
        self,
        dims: Dimensions,
        *,
        n_latent: int,
        n_perturbations: int,
        n_links: int,
        gates: Gates = "exact",
        pricing: Literal["log", "linear"] = "log",
    ) -> None:
        super().__init__()
        self.n_labels, self.gates, self.pricing = dims.n_labels, gates, pricing
        self.shift = nn.Parameter(normal_start(n_perturbations, n_latent, sd=SHIFT_SD))
        if gates == "open":
            self.register_buffer("logit", torch.full((n_perturbations, n_latent), HARD))
        else:
            self.logit = nn.Parameter(torch.full((n_perturbations, n_latent), OPEN))
        self.register_buffer("price", torch.zeros(n_perturbations, n_latent))
        # until they are set, every link is of the first label to the first perturbation
        self.register_buffer("label", torch.zeros(n_links, dtype=torch.long))
        self.register_buffer("perturbation", torch.zeros(n_links, dtype=torch.long))

    @property
    def reads_labels(self) -> bool:
        """They say which perturbations a cell has."""
        return True

    @torch.no_grad()
    def set_links(self, links: PerturbationLinks) -> None:
        """Say which perturbations a label stands for."""
        self.label.copy_(links.label)
        self.perturbation.copy_(links.perturbation)

    def open_probability(self) -> torch.Tensor:
        """q, (n_perturbations, n_latent)."""
        return torch.sigmoid(self.logit)

    def label_shift(self) -> torch.Tensor:
        """Expected shift s of the cells of each label, (n_labels, n_latent)."""
        return self._by_label(self.open_probability() * self.shift)

    def kl(self, posterior: LatentPosterior, z: torch.Tensor, cells: Cells) -> torch.Tensor:
        """KL in the mean over gates, or at a draw of them in training, (n,); for a point, -log p(z) likewise."""
        m, v = posterior
        if v is None:
            unshifted = 0.5 * (m.square() + math.log(2 * math.pi)).sum(1)
        else:
            unshifted = 0.5 * (torch.addcmul(v - 1, m, m) - v.log()).sum(1)
        if self.gates == "gumbel" and self.training:
            s = self._drawn_shift(cells)
            return unshifted + (s * (0.5 * s - m)).sum(1)
        q = self.open_probability()
        s = self._by_label(q * self.shift)
        level = 0.5 * (s.square() + self._by_label(q * (1 - q) * self.shift.square())).sum(1)
        return unshifted + level[cells.labels] - (m * s[cells.labels]).sum(1)

    def log_prob(self, z: torch.Tensor, cells: Cells) -> torch.Tensor:
        """log N(z; s, I), (n,), with the gates open that are more likely open."""
        opened = (self.logit > 0).to(self.shift.dtype)
        s = self._by_label(opened * self.shift)[cells.labels]
        return -0.5 * ((z - s).square() + math.log(2 * math.pi)).sum(1)

    def penalty(self) -> torch.Tensor | None:
        """Price of the gates; None where all are open for nothing."""
        if self.gates == "open":
            return None
        unit = functional.softplus(self.logit) if self.pricing == "log" else self.open_probability()
        return (self.price * unit).sum()

    def fine_parameters(self) -> list[nn.Parameter]:
        """Gates and shifts: the few cells of one perturbation in a minibatch move them."""
        return [p for p in (self.logit, self.shift) if isinstance(p, nn.Parameter)]

    def _by_label(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over the perturbations of each label, (n_labels, n_latent)."""
        empty = values.new_zeros(self.n_labels, values.shape[1])
        return empty.index_add(0, self.label, values[self.perturbation])

    def _drawn_shift(self, cells: Cells) -> torch.Tensor:
        """Shift of each cell at gates drawn for it, (n, n_latent); gradients are those of the soft gates."""
        cell, link = (cells.labels[:, None] == self.label).nonzero(as_tuple=True)
        logit = self.logit[self.perturbation[link]]
        uniform = torch.rand_like(logit).clamp(1e-6, 1 - 1e-6)
        soft = torch.sigmoid(logit + uniform.logit())
        gate = (soft > 0.5).to(soft.dtype) + soft - soft.detach()
        shift = gate * self.shift[self.perturbation[link]]
        return shift.new_zeros(cells.n_cells, shift.shape[1]).index_add(0, cell, shift)

    @torch.no_grad()
    def harden(self, opened: torch.Tensor, shift: torch.Tensor) -> None:
        """Fix the gates, (n_perturbations, n_latent) bool, and the shifts of those that are open."""
        self.logit.copy_(torch.where(opened, HARD, -HARD))
        self.shift.copy_(torch.where(opened, shift, 0.0))
        self.logit.requires_grad = self.shift.requires_grad = False

    @torch.no_grad()
    def close(self) -> None:
        """Fix all gates closed: a standard normal prior."""
        self.harden(torch.zeros_like(self.shift, dtype=torch.bool), self.shift.detach())

    def check(self) -> None:
        """Raise a ValueError where links are of labels or perturbations that do not exist."""
        for name, codes, n in (
            ("label", self.label, self.n_labels),
            ("perturbation", self.perturbation, len(self.shift)),
        ):
            if len(codes) and not 0 <= int(codes.min()) <= int(codes.max()) < n:
                msg = f"the links go from {name} {int(codes.min())} to {int(codes.max())} of {n}"
                raise ValueError(msg)

    def reorder_latent(self, order: LatentOrder) -> None:
        """Rename the latent dimensions, in place."""
        order.rename(self.shift, 1)
        order.rename(self.logit, 1, signed=False)
        order.rename(self.price, 1, signed=False)

    def extra_repr(self) -> str:
        """Sizes and gates, for printing."""
        return f"{self.shift.shape[0]}, {self.shift.shape[1]}, gates={self.gates!r}, pricing={self.pricing!r}"
