"""What the fused softmax heads share: their result, and the softmax of one row with its chain rule.

With logits l, log library ℓ and Λ = log Σ_g exp l_g,

    ρ_g = exp(l_g - Λ),    η_g = log μ_g = ℓ + l_g - Λ,    a_g = ∂L/∂η_g,
    ∂L/∂l_g = a_g - ρ_g Σ_k a_k,    ∂L/∂ℓ = Σ_k a_k.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ._jit import fused, reduction
from .special import exp32

if TYPE_CHECKING:
    from .sparse import CSRRows


class SoftmaxHead(NamedTuple):
    """Negative log-likelihood of a minibatch and its gradients, all float32; None where not asked for.

    Attributes
    ----------
    nll
        -log p(x), constants included; one value per cell.
    logits
        Gradient with respect to the logits, cells x genes.
    log_library
        Gradient with respect to log library, one value per cell.
    log_theta
        Gradient with respect to log θ, summed over the cells that share a row; same shape as log θ.
    zero_logits
        Gradient with respect to the zero-inflation logits, cells x genes.
    """

    nll: np.ndarray
    logits: np.ndarray | None = None
    log_library: np.ndarray | None = None
    log_theta: np.ndarray | None = None
    zero_logits: np.ndarray | None = None


@fused
def _order(bits):
    """Map the bits of a float32 to an integer in the same order; its own inverse."""
    return np.int32(bits ^ np.int32(np.int32(bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@fused
def _max(values):
    """Maximum, compared as integers: that vectorises, whatever NaN may be there."""
    bits = values.view(np.int32)
    best = np.int32(-(2**31))
    for g in range(bits.size):
        key = _order(bits[g])
        best = key if key > best else best
    return np.int32(_order(best)).view(np.float32)


@fused
def _exponentials(logits, peak, out):
    for g in range(logits.size):
        out[g] = exp32(logits[g] - peak) + np.float32(0) * logits[g]  # an infinite logit must not pass unnoticed


@reduction
def _sum32(values):
    """Sum in float32. It only reads: a sum in a loop that writes would change its order with where the arrays lie."""
    result = np.float32(0)
    for g in range(values.size):
        result += values[g]
    return result


@fused
def softmax_row(logits, rho):
    """Write softmax(logits) into rho; return log Σ exp(logits) as float64."""
    peak = _max(logits)
    _exponentials(logits, peak, rho)
    total = _sum32(rho)
    scale = np.float32(1) / total
    for g in range(rho.size):
        rho[g] *= scale
    return np.float64(peak) + math.log(np.float64(total))


@reduction
def total(values):
    """Sum of float32 values in float64."""
    result = 0.0
    for g in range(values.size):
        result += np.float64(values[g])
    return result


@fused
def logits_gradient(slope, rho, slope_sum, weight, out):
    """Chain rule through the softmax: out = weight (slope - rho slope_sum)."""
    sum32, weight32 = np.float32(slope_sum), np.float32(weight)
    for g in range(out.size):
        out[g] = weight32 * (slope[g] - rho[g] * sum32)


@fused
def scaled(values, weight, out):
    """Write weight x values to out."""
    weight32 = np.float32(weight)
    for g in range(out.size):
        out[g] = weight32 * values[g]


@fused
def add_scaled(values, weight, out):
    """Add weight x values to out."""
    weight32 = np.float32(weight)
    for g in range(out.size):
        out[g] += weight32 * values[g]


def float32_array(values: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Return values as a contiguous float32 array of that shape, or raise ValueError."""
    array = np.require(values, np.float32, ["C", "A", "W"])  # a read-only array would compile a second kernel
    if array.shape != shape:
        msg = f"`{name}` has shape {array.shape}; expected {shape}."
        raise ValueError(msg)
    return array


def check_rows(rows: CSRRows, logits: np.ndarray) -> tuple[int, int]:
    """Return (cells, genes), or raise ValueError if logits do not belong to these rows."""
    if logits.ndim != 2 or len(logits) != len(rows.indptr) - 1:
        msg = f"`logits` has shape {logits.shape}; expected one row for each of the {len(rows.indptr) - 1} cells."
        raise ValueError(msg)
    n_cells, n_genes = logits.shape
    if rows.indices.size and (rows.indices.max() >= n_genes or rows.indices.min() < 0):
        msg = f"A count lies in column {rows.indices.max()}, but `logits` has {n_genes} genes."
        raise ValueError(msg)
    return n_cells, n_genes


def weight_array(weights: np.ndarray | None, n_cells: int) -> np.ndarray:
    """Weights of the cells as float32, ones by default."""
    return np.ones(n_cells, np.float32) if weights is None else float32_array(weights, (n_cells,), "weights")
