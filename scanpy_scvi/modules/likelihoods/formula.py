"""Negative log-likelihoods as plain torch formulas, for any device and for comparison with the kernels.

As in the kernels, every entry is first scored as if its count were zero, in closed form; then the few entries with
counts are corrected. Corrections are computed in float64 where the device has it: lgamma(x + theta) - lgamma(theta)
cancels in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import softplus

if TYPE_CHECKING:
    from ..cells import Counts


def log_means(logits: torch.Tensor, log_library: torch.Tensor) -> torch.Tensor:
    """log mu = log l + log softmax(logits), (n, n_genes)."""
    return log_library[:, None] + torch.log_softmax(logits, dim=1)


def poisson_nll(counts: Counts, log_mu: torch.Tensor) -> torch.Tensor:
    """Poisson: sum_g mu - x log mu + log x!, (n,)."""
    x, eta, cell = _entries(counts, log_mu)
    correction = -x * eta + torch.lgamma(x + 1)
    return _sum(log_mu.exp(), correction, cell)


def nb_nll(counts: Counts, log_mu: torch.Tensor, log_theta: torch.Tensor) -> torch.Tensor:
    """Negative binomial, (n,); `log_theta` broadcasts to (n, n_genes).

    -log NB(x) = theta sp(log mu - t) + x sp(t - log mu) - log[Gamma(x + theta) / Gamma(theta)] + log x!, with t =
    log theta and sp = softplus.
    """
    x, eta, cell, t = _entries(counts, log_mu, log_theta)
    return _sum(_nb_zero(log_mu, log_theta), _nb_rest(x, eta, t), cell)


def zinb_nll(counts: Counts, log_mu: torch.Tensor, log_theta: torch.Tensor, zero_logits: torch.Tensor) -> torch.Tensor:
    """Zero-inflated negative binomial with logits h of the inflation, (n,).

    With c = log NB(0): -log p(0) = sp(h) - logaddexp(h, c), and -log p(x) = sp(h) - log NB(x) for x > 0.
    """
    c = -_nb_zero(log_mu, log_theta)
    zero = softplus(zero_logits) - torch.logaddexp(zero_logits, c)
    x, eta, cell, t, h = _entries(counts, log_mu, log_theta, zero_logits)
    c = -_nb_zero(eta, t)
    return _sum(zero, torch.logaddexp(h, c) - c + _nb_rest(x, eta, t), cell)


def _nb_zero(eta: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """-log NB(0)."""
    return t.exp() * softplus(eta - t)


def _nb_rest(x: torch.Tensor, eta: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """-log NB(x) + log NB(0)."""
    theta = t.exp()
    return x * softplus(t - eta) - (torch.lgamma(x + theta) - torch.lgamma(theta)) + torch.lgamma(x + 1)


def _entries(counts: Counts, log_mu: torch.Tensor, *parameters: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Counts, log mean and cell number of each stored entry, then the other parameters there, in high precision."""
    cell = counts.cell_of_entry()
    gene = counts.indices.long()
    high = torch.float32 if log_mu.device.type == "mps" else torch.float64  # mps has no float64
    at = (p.expand_as(log_mu)[cell, gene].to(high) for p in parameters)
    return counts.data.to(high), log_mu[cell, gene].to(high), cell, *at


def _sum(zero: torch.Tensor, correction: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
    """Sum over genes of both passes, per cell."""
    corrections = correction.new_zeros(len(zero)).index_add(0, cell, correction)
    return zero.sum(1) + corrections.to(zero.dtype)
