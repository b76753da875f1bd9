"""Negative log-likelihoods as plain torch formulas, for any device and for comparison with the kernels.

As in the kernels, every entry is first scored as if its count were zero, in closed form; the terms of the few entries
with counts then take their places. Those are computed in float64 where the device has it: in float32 lgamma(x + theta)
- lgamma(theta) cancels, and so does mu - x log mu near x = mu.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn.functional import softplus

if TYPE_CHECKING:
    from ..cells import Counts


def log_means(logits: torch.Tensor, log_library: torch.Tensor) -> torch.Tensor:
    """log mu = log l + log softmax(logits), (n, n_genes)."""
    return log_library[:, None] + torch.log_softmax(logits, dim=1)


def poisson_nll(counts: Counts, log_mu: torch.Tensor) -> torch.Tensor:
    """Poisson: sum_g mu - x log mu + log x!, (n,)."""
    entries = _entries(counts, log_mu)
    x, eta = entries.values
    return _sum(log_mu.exp(), eta.exp() - x * eta + torch.lgamma(x + 1), entries)


def nb_nll(counts: Counts, log_mu: torch.Tensor, log_theta: torch.Tensor) -> torch.Tensor:
    """Negative binomial, (n,); `log_theta` broadcasts to (n, n_genes).

    -log NB(x) = theta sp(log mu - t) + x sp(t - log mu) - log[Gamma(x + theta) / Gamma(theta)] + log x!, with t =
    log theta and sp = softplus.
    """
    entries = _entries(counts, log_mu, log_theta)
    return _sum(_nb_zero(log_mu, log_theta), _nb(*entries.values), entries)


def zinb_nll(counts: Counts, log_mu: torch.Tensor, log_theta: torch.Tensor, zero_logits: torch.Tensor) -> torch.Tensor:
    """Zero-inflated negative binomial with logits h of the inflation, (n,).

    With c = log NB(0): -log p(0) = sp(h) - logaddexp(h, c), and -log p(x) = sp(h) - log NB(x) for x > 0.
    """
    entries = _entries(counts, log_mu, log_theta, zero_logits)
    x, eta, t, h = entries.values
    positive = torch.where(x > 0, softplus(h) + _nb(x, eta, t), _zinb_zero(eta, t, h))  # a stored count may be zero
    return _sum(_zinb_zero(log_mu, log_theta, zero_logits), positive, entries)


def _nb_zero(eta: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """-log NB(0)."""
    return t.exp() * softplus(eta - t)


def _nb(x: torch.Tensor, eta: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """-log NB(x)."""
    theta = t.exp()
    rising = torch.lgamma(x + theta) - torch.lgamma(theta)
    return _nb_zero(eta, t) + x * softplus(t - eta) - rising + torch.lgamma(x + 1)


def _zinb_zero(eta: torch.Tensor, t: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """-log ZINB(0)."""
    return softplus(h) - torch.logaddexp(h, -_nb_zero(eta, t))


class _Entries(NamedTuple):
    """The stored entries of a minibatch."""

    cell: torch.Tensor
    gene: torch.Tensor
    values: tuple[torch.Tensor, ...]
    """Counts, log mean, and the other parameters there, in high precision."""


def _entries(counts: Counts, log_mu: torch.Tensor, *parameters: torch.Tensor) -> _Entries:
    cell, gene = counts.cell_of_entry(), counts.indices.long()
    high = torch.float32 if log_mu.device.type == "mps" else torch.float64  # mps has no float64
    at = (p.expand_as(log_mu)[cell, gene].to(high) for p in (log_mu, *parameters))
    return _Entries(cell, gene, (counts.data.to(high), *at))


def _sum(zero: torch.Tensor, stored: torch.Tensor, entries: _Entries) -> torch.Tensor:
    """Sum over genes, per cell: `zero` everywhere but at the stored entries."""
    rest = zero.index_put((entries.cell, entries.gene), zero.new_zeros(())).sum(1)
    return rest + stored.new_zeros(len(zero)).index_add(0, entries.cell, stored).to(zero.dtype)
