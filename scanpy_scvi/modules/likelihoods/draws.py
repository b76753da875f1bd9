"""Draws of counts, from torch's own generator.

Most counts are zero, and whether one is takes a uniform number and an exponential to decide. The generators of Gamma
and Poisson numbers, ten times as dear, are kept for the rest.
"""

from __future__ import annotations

import torch
from torch.nn.functional import softplus

MAX_LOG_THETA = 30.0
"""Beyond e^30 a negative binomial is Poisson in all that float32 can tell, and exp would end in infinity."""
LEAST_ACCEPTED = 0.1
"""Share of proposals accepted below which positive counts are not drawn by rejection."""


def poisson_draw(log_mean: torch.Tensor) -> torch.Tensor:
    """Poisson counts, in the shape and type of `log_mean`."""
    mean = log_mean.exp()
    positive = torch.rand_like(mean) > (-mean).exp()
    return torch.zeros_like(mean).masked_scatter_(positive, _positive_poisson(mean[positive]))


def nb_draw(log_mean: torch.Tensor, log_theta: torch.Tensor) -> torch.Tensor:
    """Negative binomial counts by their Gamma-Poisson form; `log_theta` broadcasts to the shape of `log_mean`.

    w ~ Gamma(shape theta, rate theta / mu), x ~ Poisson(w). Where it pays, x = 0 is decided first, by its probability
    p0; a positive x then follows from w given that x > 0. Its density is that of Gamma(theta + 1, theta / mu) times
    (1 - e^-w) / w up to a constant, and so w is drawn by rejection, accepted with probability (1 - p0) / mu on average.
    """
    log_theta = log_theta.clamp(max=MAX_LOG_THETA).expand_as(log_mean)
    log_p0 = -log_theta.exp() * softplus(log_mean - log_theta)
    by_rejection = -torch.expm1(log_p0) > LEAST_ACCEPTED * log_mean.exp()
    positive = by_rejection & (torch.rand_like(log_p0) > log_p0.exp())
    rest = ~by_rejection
    counts = torch.zeros_like(log_mean)
    counts.masked_scatter_(positive, _positive_poisson(_positive_rates(log_mean[positive], log_theta[positive])))
    rates = _gamma(log_theta[rest].exp()) * (log_mean[rest] - log_theta[rest]).exp()
    return counts.masked_scatter_(rest, _poisson(rates))


def _positive_rates(log_mean: torch.Tensor, log_theta: torch.Tensor) -> torch.Tensor:
    """w given that x > 0."""
    scale, shape = (log_mean - log_theta).exp(), log_theta.exp() + 1
    w, todo = torch.empty_like(scale), torch.arange(len(scale), device=scale.device)
    while len(todo):
        proposed = _gamma(shape[todo]) * scale[todo]
        accepted = torch.rand_like(proposed) * proposed < -torch.expm1(-proposed)
        w[todo[accepted]] = proposed[accepted]
        todo = todo[~accepted]
    return w


def _positive_poisson(w: torch.Tensor) -> torch.Tensor:
    """Poisson(w) given that it is positive: the first event of a process on [0, w], and those after it."""
    first = -torch.log1p(torch.rand_like(w) * torch.expm1(-w))
    return 1 + _poisson((w - first).clamp_(min=0))


def _poisson(mean: torch.Tensor) -> torch.Tensor:
    return torch.poisson(_drawable(mean)).to(mean.device)


def _gamma(shape: torch.Tensor) -> torch.Tensor:
    """Gamma(shape, 1)."""
    return torch._standard_gamma(_drawable(shape)).to(shape.device)


def _drawable(parameter: torch.Tensor) -> torch.Tensor:
    """The same where torch can draw: Apple's devices have neither generator."""
    return parameter.cpu() if parameter.device.type == "mps" else parameter
