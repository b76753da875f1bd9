"""Batch normalisation, ReLU and dropout in one pass over a minibatch's hidden layer, and the way back.

    a = P + b + S V,    x = (a - m) / √(v + ε),    y = max(0, γ x + β) k / (1 - p)

with the product P of inputs and weights, biases b, covariates S (mostly zeros, as one-hot columns are) with weights V,
mean m and variance v of the minibatch (divisor n), and keep masks k ~ Bernoulli(1 - p). Over the units of which y > 0,
with d = ∂/∂y / (1 - p):

    ∂/∂γ = Σ d x,    ∂/∂β = Σ d,    ∂/∂a = γ / √(v + ε) [d - mean(d) - x mean(d x)],    ∂/∂V = Sᵀ ∂/∂a

and ∂/∂b = 0, since the mean takes b away.

Ioffe and Szegedy 2015, arXiv 1502.03167. The running variance takes the unbiased estimate, as in PyTorch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._jit import fused
from ._memory import aligned_empty


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
def _add_rows(a, bias, design, offsets):
    for i in range(a.shape[0]):
        for k in range(a.shape[1]):
            a[i, k] += bias[k]
        for c in range(design.shape[1]):
            s = design[i, c]
            if s != 0:
                for k in range(a.shape[1]):
                    a[i, k] += s * offsets[c, k]


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
def _apply(a, mean, inverse_std, gamma, beta, rate, seed, first, out, standard):
    n, width = a.shape
    drop = np.uint32(min(np.float64(rate) * 2.0**32, 2.0**32 - 1.0))
    scale, zero = np.float32(1) / (np.float32(1) - rate), np.float32(0)
    for i in range(n):
        key = _hash32(np.uint32(seed) + np.uint32(first + i) * np.uint32(0x9E3779B9))
        for k in range(width):
            x = (a[i, k] - mean[k]) * inverse_std[k]
            y = gamma[k] * x + beta[k]
            kept = _hash32(np.uint32(key + np.uint32(k) * np.uint32(0x85EBCA77))) >= drop
            standard[i, k] = x
            out[i, k] = y * scale if kept and not y <= zero else zero * x  # NaN and infinity stay


@fused
def _forward(
    a,
    bias,
    design,
    offsets,
    gamma,
    beta,
    running_mean,
    running_var,
    eps,
    rate,
    seed,
    momentum,
    out,
    standard,
    inverse_std,
):
    n, width = a.shape
    _add_rows(a, bias, design, offsets)
    mean, var = np.empty(width, np.float32), np.empty(width, np.float32)
    _moments(a, mean, var)
    unbiased = np.float32(n / max(1, n - 1))
    for k in range(width):
        running_mean[k] += momentum * (mean[k] - running_mean[k])
        running_var[k] += momentum * (unbiased * var[k] - running_var[k])
        inverse_std[k] = np.float32(1) / np.sqrt(var[k] + eps)
    _apply(a, mean, inverse_std, gamma, beta, rate, seed, 0, out, standard)


@fused
def _slopes(slope, out, standard, rate, d_gamma, d_beta, d_a):
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


@fused
def _centre(standard, inverse_std, gamma, design, n_cells, d_gamma, d_beta, d_a, d_offsets):
    n, width = standard.shape
    share = np.float32(1) / np.float32(n_cells)
    d_offsets[:] = 0
    for i in range(n):
        for k in range(width):
            rest = d_a[i, k] - share * (d_beta[k] + standard[i, k] * d_gamma[k])
            d_a[i, k] = gamma[k] * inverse_std[k] * rest
        for c in range(design.shape[1]):
            s = design[i, c]
            if s != 0:
                for k in range(width):
                    d_offsets[c, k] += s * d_a[i, k]


@fused
def _backward(slope, out, standard, inverse_std, gamma, rate, design, d_gamma, d_beta, d_a, d_offsets):
    _slopes(slope, out, standard, rate, d_gamma, d_beta, d_a)
    _centre(standard, inverse_std, gamma, design, len(out), d_gamma, d_beta, d_a, d_offsets)


def norm_relu_dropout(
    product: np.ndarray,
    bias: np.ndarray,
    design: np.ndarray,
    offsets: np.ndarray,
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
    product
        P, float32, n x width; its memory is used for a.
    bias
        b, float32, width.
    design
        S, float32, n x covariates.
    offsets
        V, float32, covariates x width.
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
    >>> product, one, zero = np.float32([[-1], [1]]), np.ones(1, np.float32), np.zeros(1, np.float32)
    >>> none = np.empty((2, 0), np.float32), np.empty((0, 1), np.float32)
    >>> options = {"eps": 0, "momentum": 0.1, "rate": 0, "seed": 0}
    >>> normed = norm_relu_dropout(product, zero, *none, one, zero, zero.copy(), one.copy(), **options)
    >>> (normed.out.ravel() > 0).tolist()
    [False, True]
    """
    out, standard = aligned_empty(product.shape), aligned_empty(product.shape)
    inverse_std = aligned_empty(product.shape[1:])
    arrays = product, bias, design, offsets, gamma, beta, running_mean, running_var
    numbers = np.float32(eps), np.float32(rate), np.uint32(seed), np.float32(momentum)
    _forward(*arrays, *numbers, out, standard, inverse_std)
    return Normed(out, standard, inverse_std)


def norm_relu_dropout_gradient(
    slope: np.ndarray, normed: Normed, design: np.ndarray, gamma: np.ndarray, *, rate: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gradients with respect to P, V, γ and β, given ∂/∂y and the result of the way forward.

    Examples
    --------
    >>> import numpy as np
    >>> product, one, zero = np.float32([[-1], [1]]), np.ones(1, np.float32), np.zeros(1, np.float32)
    >>> none = np.empty((2, 0), np.float32), np.empty((0, 1), np.float32)
    >>> options = {"eps": 0, "momentum": 0.1, "rate": 0, "seed": 0}
    >>> normed = norm_relu_dropout(product, zero, *none, one, zero, zero.copy(), one.copy(), **options)
    >>> norm_relu_dropout_gradient(np.ones_like(product), normed, none[0], one, rate=0)[3]
    array([1.], dtype=float32)
    """
    d_a = aligned_empty(normed.out.shape)
    d_gamma, d_beta = np.empty_like(normed.inverse_std), np.empty_like(normed.inverse_std)
    d_offsets = np.empty((design.shape[1], len(gamma)), np.float32)
    _backward(slope, *normed, gamma, np.float32(rate), design, d_gamma, d_beta, d_a, d_offsets)
    return d_a, d_offsets, d_gamma, d_beta
