"""The same on a part of a minibatch, whose moments are of the whole.

Each of several processes has some rows. They add up Σ a and Σ a² (in float64, which keeps what float32 values have to
say of a variance), and on the way back Σ d and Σ d x, so that each has the moments and the gradients of all rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ._jit import fused
from ._memory import aligned_empty
from .norm_relu_dropout import Normed, _add_rows, _apply, _centre, _slopes

if TYPE_CHECKING:
    from collections.abc import Callable


class Rows(NamedTuple):
    """Which rows of a minibatch a process has."""

    first: int
    """Place of the first in the minibatch."""
    n: int
    """Rows of the minibatch."""
    total: Callable[[np.ndarray], None]
    """Sums an array over all processes, in place."""


@fused
def _sums(a, bias, design, offsets, sums):
    _add_rows(a, bias, design, offsets)
    sums[:] = 0
    for i in range(a.shape[0]):
        for k in range(a.shape[1]):
            x = np.float64(a[i, k])
            sums[0, k] += x
            sums[1, k] += x * x


@fused
def _normalise(
    a,
    sums,
    n_cells,
    gamma,
    beta,
    running_mean,
    running_var,
    eps,
    rate,
    seed,
    momentum,
    first,
    out,
    standard,
    inverse_std,
):
    width = a.shape[1]
    mean = np.empty(width, np.float32)
    unbiased = np.float32(n_cells / max(1, n_cells - 1))
    for k in range(width):
        exact_mean = sums[0, k] / n_cells
        mean[k] = np.float32(exact_mean)
        gap = sums[1, k] / n_cells - exact_mean * exact_mean
        var = np.float32(0 if gap < 0 else gap)  # NaN stays
        running_mean[k] += momentum * (mean[k] - running_mean[k])
        running_var[k] += momentum * (unbiased * var - running_var[k])
        inverse_std[k] = np.float32(1) / np.sqrt(var + eps)
    _apply(a, mean, inverse_std, gamma, beta, rate, seed, first, out, standard)


def norm_relu_dropout_part(
    rows: Rows,
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
    """Normalise, rectify and drop the rows of one process; other arguments as for :func:`.norm_relu_dropout`.

    Examples
    --------
    >>> import numpy as np
    >>> half, one, zero = np.float32([[1]]), np.ones(1, np.float32), np.zeros(1, np.float32)
    >>> none = np.empty((1, 0), np.float32), np.empty((0, 1), np.float32)
    >>> options = {"eps": 0, "momentum": 0.1, "rate": 0, "seed": 0}
    >>> other_is_minus_one = Rows(0, 2, lambda sums: np.add(sums, [[-1.0], [1.0]], out=sums))
    >>> arrays = half, zero, *none, one, zero, zero.copy(), one.copy()
    >>> norm_relu_dropout_part(other_is_minus_one, *arrays, **options).out
    array([[1.]], dtype=float32)
    """
    out, standard = aligned_empty(product.shape), aligned_empty(product.shape)
    inverse_std = aligned_empty(product.shape[1:])
    sums = np.empty((2, product.shape[1]))
    _sums(product, bias, design, offsets, sums)
    rows.total(sums)
    numbers = np.float32(eps), np.float32(rate), np.uint32(seed), np.float32(momentum), rows.first
    _normalise(product, sums, rows.n, gamma, beta, running_mean, running_var, *numbers, out, standard, inverse_std)
    return Normed(out, standard, inverse_std)


def norm_relu_dropout_part_gradient(
    slope: np.ndarray, normed: Normed, design: np.ndarray, gamma: np.ndarray, rows: Rows, *, rate: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gradients as of :func:`.norm_relu_dropout_gradient`; those of V, γ and β are what the rows of this process add.

    Examples
    --------
    >>> import numpy as np
    >>> normed = Normed(*(np.float32(x) for x in ([[1]], [[1]], [1])))
    >>> other_is_dead = Rows(0, 2, lambda sums: None)
    >>> none = np.empty((1, 0), np.float32)
    >>> gradients = norm_relu_dropout_part_gradient(
    ...     np.float32([[1]]), normed, none, np.ones(1, np.float32), other_is_dead, rate=0
    ... )
    >>> gradients[0], gradients[2]
    (array([[0.]], dtype=float32), array([1.], dtype=float32))
    """
    d_a = aligned_empty(normed.out.shape)
    own = np.empty((2, len(gamma)), np.float32)
    d_offsets = np.empty((design.shape[1], len(gamma)), np.float32)
    _slopes(slope, *normed[:2], np.float32(rate), own[1], own[0], d_a)
    whole = own.copy()
    rows.total(whole)
    _centre(*normed[1:], gamma, design, rows.n, whole[1], whole[0], d_a, d_offsets)
    return d_a, d_offsets, own[1], own[0]
