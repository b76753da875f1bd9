"""Adam and a moving average of the weights, in one pass over memory.

With gradient g, weight decay λ, rates β₁ and β₂, and t the number of the step,

    g ← g + λ w
    m ← β₁ m + (1 - β₁) g,    v ← β₂ v + (1 - β₂) g²
    w ← w - α / (1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + ε)
    a ← a + κ (w - a)

for `weights` w, `first` m, `second` v, `average` a, `learning_rate` α, `average_weight` κ. This is the update of
`torch.optim.Adam` (Kingma & Ba, ICLR 2015, algorithm 1, with weight decay as a penalty). A step reads and writes every
array once; that, not the arithmetic, is what it costs.
"""

from __future__ import annotations

import math

import numpy as np

from ._jit import exact, fused


@fused
def _update(w, gradient, m, v, rate, rest1, beta2, rest2, correction, eps, decay):
    for i in range(w.size):
        g = gradient[i] + decay * w[i]
        m[i] = m[i] + rest1 * (g - m[i])
        v[i] = beta2 * v[i] + rest2 * (g * g)
        w[i] = w[i] - rate * m[i] / (np.sqrt(v[i]) * correction + eps)


@fused
def _update_and_average(w, gradient, m, v, average, share, rate, rest1, beta2, rest2, correction, eps, decay):
    for i in range(w.size):
        g = gradient[i] + decay * w[i]
        m[i] = m[i] + rest1 * (g - m[i])
        v[i] = beta2 * v[i] + rest2 * (g * g)
        w[i] = w[i] - rate * m[i] / (np.sqrt(v[i]) * correction + eps)
        average[i] = average[i] + share * (w[i] - average[i])


@exact
def _to_boundary(w):
    """How many weights lie before the first multiple of 64 bytes; a vector that straddles one takes twice the time."""
    return min(w.size, (-w.ctypes.data % 64) // 4)


@exact
def _step(w, g, m, v, rate, rest1, beta2, rest2, correction, eps, decay):
    k = _to_boundary(w)
    _update(w[:k], g[:k], m[:k], v[:k], rate, rest1, beta2, rest2, correction, eps, decay)
    _update(w[k:], g[k:], m[k:], v[k:], rate, rest1, beta2, rest2, correction, eps, decay)


@exact
def _step_and_average(w, g, m, v, a, share, rate, rest1, beta2, rest2, correction, eps, decay):
    k = _to_boundary(w)
    _update_and_average(w[:k], g[:k], m[:k], v[:k], a[:k], share, rate, rest1, beta2, rest2, correction, eps, decay)
    _update_and_average(w[k:], g[k:], m[k:], v[k:], a[k:], share, rate, rest1, beta2, rest2, correction, eps, decay)


def adam_step(
    weights: np.ndarray,
    gradient: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    average: np.ndarray | None = None,
    *,
    learning_rate: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    step: int,
    weight_decay: float = 0.0,
    average_weight: float = 0.0,
) -> None:
    """Make one step of Adam in place, and move an average of the weights along.

    Parameters
    ----------
    weights
        The weights, float32, flat and contiguous; updated.
    gradient
        Gradient of the loss, of the same kind; only read.
    first, second
        Moving averages of the gradient and of its square, zero before the first step; updated.
    average
        Moving average of the weights, updated unless `average_weight` is 0; None where none is kept.
    learning_rate
        Size of a step.
    beta1, beta2
        Decay of the two moving averages of the gradient, from 0 to below 1.
    eps
        Added to the root of the second moment.
    step
        Number of this step, from 1.
    weight_decay
        Factor on the weights that is added to the gradient (an L2 penalty).
    average_weight
        Share of the new weights in their moving average, from 0 (none is kept) to 1.

    Returns
    -------
    None. Fastest where all arrays begin at a multiple of 64 bytes, as torch's do.

    Raises
    ------
    ValueError
        If an array is not flat, contiguous, writeable float32 of the weights' size, or if a number is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> w, g, m, v = np.float32([1, 2]), np.float32([3, -4]), np.zeros(2, np.float32), np.zeros(2, np.float32)
    >>> adam_step(w, g, m, v, learning_rate=0.1, step=1)
    >>> w.round(6)
    array([0.9, 2.1], dtype=float32)
    """
    _check_numbers(beta1, beta2, step, average_weight)
    arrays = [weights, gradient, first, second]
    names = ["weights", "gradient", "first", "second"]
    if average_weight > 0:
        if average is None:
            msg = f"`average_weight` is {average_weight}, but no `average` was given to be moved."
            raise ValueError(msg)
        arrays.append(average)
        names.append("average")
    for array, name in zip(arrays, names, strict=True):
        _check_array(array, weights.size, name)
    numbers = (
        np.float32(learning_rate / (1.0 - beta1**step)),
        np.float32(1.0 - beta1),  # in float64, since 0.999 has no exact float32
        np.float32(beta2),
        np.float32(1.0 - beta2),
        np.float32(1.0 / math.sqrt(1.0 - beta2**step)),
        np.float32(eps),
        np.float32(weight_decay),
    )
    if average_weight > 0:
        _step_and_average(weights, gradient, first, second, average, np.float32(average_weight), *numbers)
    else:
        _step(weights, gradient, first, second, *numbers)


def _check_array(array: np.ndarray, size: int, name: str) -> None:
    flags = array.flags
    if array.dtype != np.float32 or array.shape != (size,) or not (flags.c_contiguous and flags.behaved):
        msg = (
            f"`{name}` is {array.dtype} of shape {array.shape} "
            f"({'' if flags.c_contiguous else 'not '}contiguous, {'' if flags.writeable else 'not '}writeable); "
            f"all arrays must be float32, contiguous, writeable and of shape ({size},)."
        )
        raise ValueError(msg)


def _check_numbers(beta1: float, beta2: float, step: int, average_weight: float) -> None:
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        msg = f"`beta1` is {beta1} and `beta2` {beta2}; both must be from 0 to below 1."
        raise ValueError(msg)
    if step < 1:
        msg = f"`step` is {step}; steps are counted from 1."
        raise ValueError(msg)
    if not 0 <= average_weight <= 1:
        msg = f"`average_weight` is {average_weight}; it is a share, from 0 to 1."
        raise ValueError(msg)
