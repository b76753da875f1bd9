"""Batch normalisation, ReLU and dropout in one pass over a minibatch's hidden layer, and the way back.

    x = (a - m) / √(v + ε),    y = max(0, γ x + β) k / (1 - p)

with mean m and variance v of the minibatch (divisor n), keep masks k ~ Bernoulli(1 - p), and, over the units of which
y > 0, with d = ∂/∂y / (1 - p):

    ∂/∂γ = Σ d x,    ∂/∂β = Σ d,    ∂/∂a = γ / √(v + ε) [d - mean(d) - x mean(d x)]

Ioffe and Szegedy 2015, arXiv 1502.03167. The running variance takes the unbiased estimate, as in PyTorch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import fused


class Normed(NamedTuple):
    """Result of the way forward, and what the way back needs of it.

    Attributes
    ----------
    out
        y, float32, n x width.
    standard
        x, float32, n x width.
    inverse_std
        1 / √(v + ε), float32, width.
    """

    out: np.ndarray
    standard: np.ndarray
    inverse_std: np.ndarray


@fused
def _moments(a, mean, var):
    n, width = a.shape
    mean[:] = 0
    var[:] = 0
    for i in range(n):
        for k in range(width):
            mean[k] += a[i, k]
    for k in range(width):
        mean[k] /= np.float32(n)
    for i in range(n):
        for k in range(width):
            gap = a[i, k] - mean[k]
            var[k] += gap * gap
    for k in range(width):
        var[k] /= np.float32(n)


@fused
def _hash32(word):
    """Mix the bits of an integer (the finaliser of MurmurHash3)."""
    word = np.uint32(word ^ np.uint32(word >> np.uint32(16)))
    word = np.uint32(word * np.uint32(0x85EBCA6B))
    word = np.uint32(word ^ np.uint32(word >> np.uint32(13)))
    word = np.uint32(word * np.uint32(0xC2B2AE35))
    return np.uint32(word ^ np.uint32(word >> np.uint32(16)))


@fused
def _forward(a, gamma, beta, eps, rate, seed, momentum, running_mean, running_var, out, standard, inverse_std):
    n, width = a.shape
    mean, var = np.empty(width, np.float32), np.empty(width, np.float32)
    _moments(a, mean, var)
    unbiased = np.float32(n / max(1, n - 1))
    for k in range(width):
        running_mean[k] += momentum * (mean[k] - running_mean[k])
        running_var[k] += momentum * (unbiased * var[k] - running_var[k])
        inverse_std[k] = np.float32(1) / np.sqrt(var[k] + eps)
    drop = np.uint32(min(np.float64(rate) * 2.0**32, 2.0**32 - 1.0))
    scale, zero = np.float32(1) / (np.float32(1) - rate), np.float32(0)
    for i in range(n):
        key = _hash32(np.uint32(seed) + np.uint32(i) * np.uint32(0x9E3779B9))
        for k in range(width):
            x = (a[i, k] - mean[k]) * inverse_std[k]
            y = gamma[k] * x + beta[k]
            kept = _hash32(np.uint32(key + np.uint32(k) * np.uint32(0x85EBCA77))) >= drop
            standard[i, k] = x
            out[i, k] = y * scale if kept and not y <= zero else zero * x  # NaN and infinity stay


@fused
def _backward(slope, out, standard, inverse_std, gamma, rate, d_gamma, d_beta, d_a):
    n, width = out.shape
    scale, zero = np.float32(1) / (np.float32(1) - rate), np.float32(0)
    d_gamma[:] = 0
    d_beta[:] = 0
    for i in range(n):
        for k in range(width):
            d = zero if out[i, k] == zero else slope[i, k] * scale
            d_a[i, k] = d
            d_beta[k] += d
            d_gamma[k] += d * standard[i, k]
    share = np.float32(1) / np.float32(n)
    for i in range(n):
        for k in range(width):
            rest = d_a[i, k] - share * (d_beta[k] + standard[i, k] * d_gamma[k])
            d_a[i, k] = gamma[k] * inverse_std[k] * rest


def norm_relu_dropout(
    a: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray,
    running_mean: np.ndarray,
    running_var: np.ndarray,
    *,
    eps: float,
    momentum: float,
    rate: float,
    seed: int,
) -> Normed:
    """Normalise, rectify and drop; update the running moments in place.

    Parameters
    ----------
    a
        Hidden layer, float32, n x width.
    gamma, beta
        Scale and shift, float32, width.
    running_mean, running_var
        Moving averages, float32, width; moved towards this minibatch by `momentum`.
    eps
        ε.
    momentum
        Weight of this minibatch in the moving averages.
    rate
        Share p of units that are dropped.
    seed
        Of the masks, an integer from 0 to 2³² - 1. The mask of a unit depends on the seed and its place alone.

    Examples
    --------
    >>> import numpy as np
    >>> one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    >>> a = np.float32([[-1], [1]])
    >>> norm_relu_dropout(a, one, zero, zero.copy(), one.copy(), eps=0, momentum=0.1, rate=0, seed=0).out.ravel()
    array([0., 1.], dtype=float32)
    """
    out, standard = np.empty_like(a), np.empty_like(a)
    inverse_std = np.empty(a.shape[1], np.float32)
    numbers = np.float32(eps), np.float32(rate), np.uint32(seed), np.float32(momentum)
    _forward(a, gamma, beta, *numbers, running_mean, running_var, out, standard, inverse_std)
    return Normed(out, standard, inverse_std)


def norm_relu_dropout_gradient(
    slope: np.ndarray, normed: Normed, gamma: np.ndarray, *, rate: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients with respect to a, γ and β, given ∂/∂y and the result of the way forward.

    Examples
    --------
    >>> import numpy as np
    >>> one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    >>> a = np.float32([[-1], [1]])
    >>> normed = norm_relu_dropout(a, one, zero, zero.copy(), one.copy(), eps=0, momentum=0.1, rate=0, seed=0)
    >>> norm_relu_dropout_gradient(np.ones_like(a), normed, one, rate=0)[2]
    array([1.], dtype=float32)
    """
    d_a = np.empty_like(normed.out)
    d_gamma, d_beta = np.empty_like(normed.inverse_std), np.empty_like(normed.inverse_std)
    _backward(slope, *normed, gamma, np.float32(rate), d_gamma, d_beta, d_a)
    return d_a, d_gamma, d_beta
