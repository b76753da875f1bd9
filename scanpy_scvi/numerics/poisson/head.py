"""Poisson likelihood of softmax proportions: value and gradients in one pass over a minibatch.

    -log p(x) = Σ_g [ μ_g - x_g η_g + log x_g! ] = e^ℓ - Σ_g x_g η_g + Σ_g log x_g!
    ∂/∂l_g = ρ_g Σ_k x_k - x_g,    ∂/∂ℓ = e^ℓ - Σ_k x_k

since Σ_g μ_g = e^ℓ.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .._jit import fused
from ..softmax import (
    SoftmaxHead,
    aligned_rows,
    check_rows,
    exponentials,
    float32_array,
    head_arrays,
    no_gradient,
    scaled,
    weight_array,
)
from ..special import log_factorial

if TYPE_CHECKING:
    from ..sparse import CSRRows

_TABLE = np.array([math.lgamma(x + 1.0) for x in range(64)])  # log x!


@fused
def _head(indptr, indices, counts, logits, log_library, weights, gradient, nll, d_logits, d_library):
    exponential = aligned_rows(1, logits.shape[1])[0]
    for i in range(logits.shape[0]):
        row = logits[i]
        total, log_total = exponentials(row, exponential)
        shift, library = np.float64(log_library[i]) - log_total, math.exp(np.float64(log_library[i]))
        value, count_sum = library + 0.0 * (shift + library), 0.0
        for j in range(indptr[i], indptr[i + 1]):
            x, whole = counts[j], np.uintp(counts[j])
            count_sum += x
            product = np.float64(x) * (np.float64(row[np.uintp(indices[j])]) + shift)
            tabled = (whole < _TABLE.size) & (np.float32(whole) == x)
            value += (_TABLE[whole] if tabled else log_factorial(np.float64(x))) - product
        nll[i] = value
        if gradient:
            weight, slopes = weights[i], d_logits[i]
            d_library[i] = weight * (library - count_sum)
            scaled(exponential, np.float32(weight * count_sum / total), slopes)
            for j in range(indptr[i], indptr[i + 1]):
                slopes[np.uintp(indices[j])] -= weight * counts[j]


def softmax_head(
    rows: CSRRows,
    logits: np.ndarray,
    log_library: np.ndarray,
    *,
    gradient: bool = True,
    weights: np.ndarray | None = None,
    out: SoftmaxHead | None = None,
) -> SoftmaxHead:
    """Poisson negative log-likelihood of counts with mean μ = exp(log library) softmax(logits).

    Parameters
    ----------
    rows
        Counts of a minibatch (n cells), from :func:`scanpy_scvi.numerics.sparse.take_rows`.
    logits
        Unnormalised log proportions, float32, n x genes.
    log_library
        Log of each cell's expected total, float32, n.
    gradient
        Compute the gradients too.
    weights
        Factor on each cell's contribution to the gradients (the incoming gradient of its nll), n.
    out
        Result of an earlier call with the same shapes, whose arrays are filled anew, to save their allocation.

    Returns
    -------
    The negative log-likelihood per cell and its gradients.

    Raises
    ------
    ValueError
        If shapes do not fit, those of `out` included.

    Examples
    --------
    >>> import numpy as np
    >>> from scanpy_scvi.numerics.sparse import take_rows
    >>> rows = take_rows(np.array([0, 1]), np.array([0]), np.array([3]), [0])
    >>> head = softmax_head(rows, np.zeros((1, 2)), np.log([4.0]))
    >>> head.nll.round(4), head.logits
    (array([3.7123], dtype=float32), array([[-1.5,  1.5]], dtype=float32))
    """
    logits = np.asarray(logits)
    n, n_genes = check_rows(rows, logits)
    logits = float32_array(logits, (n, n_genes), "logits")
    log_library = float32_array(log_library, (n,), "log_library")
    w = weight_array(weights, n)
    result = head_arrays(out, ((n,), (n, n_genes), (n,), None, None) if gradient else ((n,), None, None, None, None))
    gradients = result[1:3] if gradient else (no_gradient(2), no_gradient(1))
    _head(*rows, logits, log_library, w, gradient, result.nll, *gradients)
    return result
