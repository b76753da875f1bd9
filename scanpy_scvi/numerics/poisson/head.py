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
from ..softmax import SoftmaxHead, check_rows, float32_array, scaled, softmax_row, weight_array
from ..special import log_factorial

if TYPE_CHECKING:
    from ..sparse import CSRRows


@fused
def _head(indptr, indices, counts, logits, log_library, weights, gradient, nll, d_logits, d_library):
    rho = np.empty(logits.shape[1], np.float32)
    for i in range(logits.shape[0]):
        shift = np.float64(log_library[i]) - softmax_row(logits[i], rho)
        library = math.exp(np.float64(log_library[i]))
        value, count_sum = library + 0.0 * log_library[i], 0.0
        for j in range(indptr[i], indptr[i + 1]):
            x = np.float64(counts[j])
            count_sum += x
            if x != 0:
                value += log_factorial(x) - x * (np.float64(logits[i, indices[j]]) + shift)
        nll[i] = value + 0.0 * shift
        if gradient:
            weight = np.float64(weights[i])
            d_library[i] = weight * (library - count_sum)
            scaled(rho, weight * count_sum, d_logits[i])
            for j in range(indptr[i], indptr[i + 1]):
                d_logits[i, indices[j]] -= weights[i] * counts[j]


def softmax_head(
    rows: CSRRows,
    logits: np.ndarray,
    log_library: np.ndarray,
    *,
    gradient: bool = True,
    weights: np.ndarray | None = None,
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

    Returns
    -------
    The negative log-likelihood per cell and its gradients.

    Raises
    ------
    ValueError
        If shapes do not fit.

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
    nll = np.empty(n, np.float32)
    d_logits = np.empty((n, n_genes) if gradient else (0, 0), np.float32)
    d_library = np.empty(n if gradient else 0, np.float32)
    _head(*rows, logits, log_library, weight_array(weights, n), gradient, nll, d_logits, d_library)
    return SoftmaxHead(nll, d_logits, d_library) if gradient else SoftmaxHead(nll)
