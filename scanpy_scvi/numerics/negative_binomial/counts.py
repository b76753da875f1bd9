"""Negative-binomial terms of positive counts: -log p(x) and its derivatives in η = log μ and t = log θ.

Two ways for the counts that `rising` does not serve. With w = (x - μ) / (θ + μ):

`large_counts`, from 8 up, vectorised float32, after Loader (2000, "Fast and accurate computation of binomial
probabilities"): the deviance D from the saturated model x = μ, and Stirling's series s(y) = 1/12y - 1/360y³ + … for
that model. The series fails at small θ, so θ + 4 takes its place, by Γ(θ + 4) = θ (θ + 1) (θ + 2) (θ + 3) Γ(θ):

    D      = x log(1 + v) - θ log(1 + w),    v = θ (x - μ) / (μ (x + θ))
    ∂/∂t   = -θ [log(1 + w) - w + digamma(x + θ) - digamma(θ) - log(1 + x/θ)]

`exact_count`, any x >= 0, float64.
"""

from __future__ import annotations

import math

import numpy as np

from .._jit import fused
from ..special import (
    digamma_rising_excess,
    log1p32,
    log1p_minus,
    log32,
    log_factorial,
    log_ratio32,
    log_rising,
    softplus,
)

_ONE = np.float32(1)


@fused
def is_regular(x, mu, inverse):
    """Whether `large_counts` serves this entry, not `exact_count`."""
    within = (x >= np.float32(8)) & (x < np.float32(1e6))
    return within & (inverse < np.float32(1e20)) & (mu > np.float32(1e-20))


@fused
def _stirling(y):
    """s(y) for y >= 4."""
    u = _ONE / (y * y)
    return (np.float32(1 / 12) - u * (np.float32(1 / 360) - u * np.float32(1 / 1260))) / y


@fused
def _digamma_excess(x, theta, inverse, log_shift):
    """Difference digamma(x + θ) - digamma(θ) - log(1 + x / θ) for x >= 8, with log_shift = log(1 + 4 / θ)."""
    z, b = theta + np.float32(4), _ONE / (theta + x)
    iz, b2 = _ONE / z, b * b
    iz2 = iz * iz
    # digamma(y) = log y - ½/y - 1/12y² + 1/120y⁴ - …
    of_z = iz * np.float32(0.5) + iz2 * (np.float32(1 / 12) - iz2 * (np.float32(1 / 120) - iz2 * np.float32(1 / 252)))
    of_sum = b * np.float32(0.5) + b2 * (np.float32(1 / 12) - b2 * np.float32(1 / 120))
    first, second, third = theta + np.float32(1), theta + np.float32(2), theta + np.float32(3)
    steps = inverse + (first * second + first * third + second * third) / (first * second * third)
    shifted = of_z - of_sum + steps - log_shift
    # For large θ every term above is 1/θ and the result 1/θ²: take the difference first.
    a = inverse
    series = np.float32(0.5) + (a + b) * (np.float32(1 / 12) - (a * a + b2) * np.float32(1 / 120))
    return shifted if theta < np.float32(8) else x * a * b * series


@fused
def large_counts(n, x, mu, theta, inverse, value, slope, theta_slope):
    """Terms of n counts from 8 to 1e6."""
    four, two_pi = np.float32(4), np.float32(2 * math.pi)
    for j in range(n):
        c, m, a = x[j], mu[j], theta[j]
        excess, both, total = c - m, _ONE / (a + m), c + a
        by_saturated = _ONE / (m * total)
        v, w = excess * a * by_saturated, excess * both
        log_v, rest_v, near_v = log_ratio32(c * (a + m) * by_saturated, v)
        log_w, rest_w, near_w = log_ratio32(total * both, w)
        deviance = c * log_v - a * log_w
        together = v * w * a + c * rest_v - a * rest_w  # near x = μ the linear terms cancel: x v - θ w = θ v w
        deviance = together if near_v and near_w else deviance
        z = a + four
        iz = _ONE / z
        log_shift = log1p32(four * inverse[j])
        shift = a * iz * ((a + _ONE) * iz) * ((a + np.float32(2)) * iz) * ((a + np.float32(3)) * iz)
        root = math.sqrt(z / (two_pi * c * total))
        saturated = log32(shift * root) + four - a * log_shift - _stirling(z) + _stirling(total) - _stirling(c)
        value[j] = deviance - saturated
        slope[j] = -excess * a * both
        theta_slope[j] = -a * (rest_w + _digamma_excess(c, a, inverse[j], log_shift))


@fused
def exact_count(x, eta, t):
    """Float64 terms of any x >= 0."""
    theta, d = math.exp(t), eta - t
    r, u = math.exp(d), x / theta
    value = theta * softplus(d) + x * softplus(-d) - log_rising(x, theta) + log_factorial(x)
    slope = (theta * r - x) / (1.0 + r)
    # log(1 + r) - log(1 + u) - (r - u) / (1 + r) = -[log(1 + w) - w] with w = (u - r) / (1 + r)
    theta_slope = -theta * (log1p_minus((u - r) / (1.0 + r)) + digamma_rising_excess(x, theta))
    return value, slope, theta_slope
