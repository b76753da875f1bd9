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
from ._memory import aligned_empty
from .special import exp_below32

if TYPE_CHECKING:
    from .sparse import CSRRows


BLOCK = 4096  # genes summed in float32 before their sum is added up in float64
_INFINITY_BITS = np.int32(0x7F800000)
_UNROLLED, _MARGIN = 32, 128  # floats
_NOTHING = np.float32(-3e38)  # a finite logit whose exponential is nil


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


Shape = tuple[int, ...]
SoftmaxShapes = tuple[Shape, Shape | None, Shape | None, Shape | None, Shape | None]


@fused
def _order(bits):
    """Map the bits of a float32 to an integer in the same order; its own inverse."""
    return np.int32(bits ^ np.int32(np.int32(bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@fused
def _copy_and_scan(bits, out):
    """Copy the bits of floats; return the largest of them and of their sizes, as integers: NaN does not disturb."""
    best, size = np.int32(-(2**31)), np.int32(0)
    for g in range(bits.size):
        b = bits[g]
        out[g] = b
        key, magnitude = _order(b), np.int32(b & np.int32(0x7FFFFFFF))
        best = key if key > best else best
        size = magnitude if magnitude > size else size
    return best, size


@fused
def copy_row(values, out):
    """Copy a row to where it has room; return its maximum, and 0.0, or NaN unless all of it is finite."""
    best, size = _copy_and_scan(values.view(np.int32), out.view(np.int32))
    return np.int32(_order(best)).view(np.float32), 0.0 if size < _INFINITY_BITS else math.nan


@reduction
def _exponentials(row, peak):
    total = np.float32(0)
    for g in range(row.size):
        value = exp_below32(row[g] - peak)
        row[g] = value
        total += value
    return total


@fused
def exponentials(logits, row):
    """Write exp(logits - peak) into the front of `row`, 0 behind; return their sum and log Σ exp(logits) as float64.

    The sum is taken in a loop over a single array, in blocks: its order never depends on where arrays lie.
    """
    n = logits.size
    peak, defect = copy_row(logits, row)
    row[n:] = _NOTHING
    total = defect
    for start in range(0, row.size, BLOCK):
        total += _exponentials(row[start : start + BLOCK], peak)
    return total, np.float64(peak) + math.log(total)


@fused
def softmax_row(logits, rho):
    """Write softmax(logits) into rho, of the same size; return log Σ exp(logits) as float64."""
    total, log_total = exponentials(logits, rho)
    scale = np.float32(1.0 / total)
    for g in range(rho.size):
        rho[g] *= scale
    return log_total


@fused
def logits_gradient(slope, exponential, weight, projection, out):
    """Chain rule through the softmax: out = weight slope - projection exponential."""
    for g in range(out.size):
        out[g] = weight * slope[g] - projection * exponential[g]


@fused
def scaled(values, weight, out):
    """Write weight x values to out."""
    for g in range(out.size):
        out[g] = weight * values[g]


@fused
def aligned_rows(n_rows, n):
    """Scratch space: rows of at least n float32, whole vectors wide, each at a multiple of 64 bytes.

    No loop over such a row ends in single steps. The width keeps rows from falling on the same cache sets; together
    with the margin it also keeps compiled loops from suspecting an overlap with other arrays and changing their way.
    """
    width = max((n + _UNROLLED - 1) // _UNROLLED * _UNROLLED, 4 * _UNROLLED)
    width += _UNROLLED if width % 256 == 0 else 0
    memory = np.zeros(n_rows * width + 2 * _MARGIN, np.float32)
    start = (-memory.ctypes.data % 64) // 4 + _MARGIN - 16
    return memory[start : start + n_rows * width].reshape((n_rows, width))


@fused
def whole_vectors(n, size):
    """Round n up to whole vectors: what lies behind the entries of a scratch row is computed too, and ignored."""
    return min((n + 15) // 16 * 16, size)


def head_arrays(out: SoftmaxHead | None, shapes: SoftmaxShapes) -> SoftmaxHead:
    """Arrays of these shapes for a head to fill, `out` or new ones; raise ValueError if `out` does not fit."""
    if out is None:
        return SoftmaxHead(*(None if shape is None else aligned_empty(shape) for shape in shapes))  # type: ignore[arg-type]
    for name, array, shape in zip(SoftmaxHead._fields, out, shapes, strict=True):
        if shape is None:
            continue
        if array is None or array.shape != shape or array.dtype != np.float32 or not array.flags.carray:
            found = "None" if array is None else f"{array.dtype} of shape {array.shape}"
            msg = (
                f"`out.{name}` is {found}; expected contiguous, writeable float32 of shape {shape}. "
                "Pass the result of a call with the same shapes and the same `gradient`, or leave `out` away."
            )
            raise ValueError(msg)
    return SoftmaxHead(*(None if shape is None else array for array, shape in zip(out, shapes, strict=True)))  # type: ignore[arg-type]


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
    # Seen as unsigned, negative columns are huge.
    if rows.indices.size and rows.indices.view(np.uint32).max() >= n_genes:
        msg = f"A count lies in column {rows.indices.max()}, but `logits` has {n_genes} genes."
        raise ValueError(msg)
    return n_cells, n_genes


def no_gradient(n_dimensions: int) -> np.ndarray:
    """Empty array of that many dimensions, where a kernel is told to leave a gradient out."""
    return np.empty((0,) * n_dimensions, np.float32)


def weight_array(weights: np.ndarray | None, n_cells: int) -> np.ndarray:
    """Weights of the cells as float32, ones by default."""
    return np.ones(n_cells, np.float32) if weights is None else float32_array(weights, (n_cells,), "weights")
