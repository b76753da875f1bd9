"""Rows over all genes beside a bfloat16 product: add biases on the way out, sum gradients on the way back.

    L = P + 1 bᵀ + S V,    ∂L/∂b = Σ_i D_i,    ∂L/∂V = Sᵀ D

P and D go through memory once; P is read, and D written, as bfloat16, which is what the matrix products around them
take. S, cells x covariates, is mostly zeros (one-hot columns).
"""

from __future__ import annotations

import numpy as np

from ._jit import fused
from ._memory import aligned_empty


@fused
def _add_rows(product, bias, design, offsets, out):
    n_genes = out.shape[1]
    for i in range(out.shape[0]):
        row, bits = out[i], product[i]
        for g in range(n_genes):
            row[g] = np.uint32(np.uint32(bits[g]) << np.uint32(16)).view(np.float32) + bias[g]
        for c in range(design.shape[1]):
            s = design[i, c]
            if s != 0:
                offset = offsets[c]
                for g in range(n_genes):
                    row[g] += s * offset[g]


@fused
def _round_rows(slope, design, out, d_bias, d_offsets):
    n_genes = slope.shape[1]
    d_bias[:] = 0
    d_offsets[:] = 0
    for i in range(slope.shape[0]):
        row, bits = slope[i], out[i]
        for g in range(n_genes):
            word = np.float32(row[g]).view(np.uint32)
            nearest_even = np.uint32(0x7FFF) + np.uint32(np.uint32(word >> np.uint32(16)) & np.uint32(1))
            rounded = np.uint32(np.uint32(word + nearest_even) >> np.uint32(16))
            # rounding could carry a NaN's payload over into infinity or zero
            nan = np.uint32(word & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
            bits[g] = np.uint16(0x7FC0) if nan else np.uint16(rounded)
            d_bias[g] += row[g]
        for c in range(design.shape[1]):
            s = design[i, c]
            if s != 0:
                d_offset = d_offsets[c]
                for g in range(n_genes):
                    d_offset[g] += s * row[g]


def add_rows(
    product: np.ndarray, bias: np.ndarray, design: np.ndarray, offsets: np.ndarray, out: np.ndarray | None = None
) -> np.ndarray:
    """Compute P + b + S V.

    Parameters
    ----------
    product
        P as bfloat16 bits, uint16, n x genes.
    bias
        b, float32, genes.
    design
        S, float32, n x covariates.
    offsets
        V, float32, covariates x genes.
    out
        A float32 array, n x genes, to fill.

    Returns
    -------
    Float32 array, n x genes; `out` where it was given.

    Examples
    --------
    >>> import numpy as np
    >>> one = np.full((1, 2), 0x3F80, np.uint16)  # bfloat16 1.0
    >>> add_rows(one, np.float32([0.5, 0]), np.ones((1, 1), np.float32), np.float32([[0, 2]]))
    array([[1.5, 3. ]], dtype=float32)
    """
    out = aligned_empty(product.shape) if out is None else out
    _add_rows(product, bias, design, offsets, out)
    return out


def round_rows(
    slope: np.ndarray, design: np.ndarray, out: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Round D to bfloat16 (nearest, ties to even) and sum it over cells.

    Parameters
    ----------
    slope
        D = ∂/∂L, float32, n x genes.
    design
        S, float32, n x covariates.
    out
        An array for the bits, uint16, n x genes, to fill.

    Returns
    -------
    bfloat16 bits of D (uint16, n x genes), ∂/∂b (genes) and ∂/∂V (covariates x genes), the sums in float32 of the
    unrounded values.

    Examples
    --------
    >>> import numpy as np
    >>> bits, bias, _ = round_rows(np.float32([[1, 2], [3, 4]]), np.empty((2, 0), np.float32))
    >>> bias, hex(bits[0, 0])
    (array([4., 6.], dtype=float32), '0x3f80')
    """
    bits = aligned_empty(slope.shape, np.uint16) if out is None else out
    d_bias, d_offsets = (aligned_empty(k) for k in (slope.shape[1:], (design.shape[1], slope.shape[1])))
    _round_rows(slope, design, bits, d_bias, d_offsets)
    return bits, d_bias, d_offsets
