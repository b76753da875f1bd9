"""Special functions for count likelihoods: fast float32 exp and log, exact float64 rising factorials.

The float32 helpers are polynomials without branches, so that LLVM vectorises a loop that calls them. They are good to
about 1e-7 relative. The float64 helpers are differences of lgamma and digamma that do not cancel when θ is large:

    log_rising(x, θ)     = lgamma(x + θ) - lgamma(θ)      = Σ_{k<x} log(θ + k)    for an integer x
    digamma_rising(x, θ) = digamma(x + θ) - digamma(θ)    = Σ_{k<x} 1 / (θ + k)   for an integer x

All of them are compiled by Numba and take and give scalars; call them from other compiled functions.
"""

from __future__ import annotations

import math

import numpy as np

from ._jit import exact, fused

_ROUND = np.float32(1.5 * 2**23)  # adding and subtracting it rounds a small float32 to an integer
_LOG2_E = np.float32(1.44269504)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_LN2 = np.float32(0.69314718)
_LN2_PER_BIT = np.float32(0.69314718 / 2**23)  # of a float's exponent, left where it stands
_SQRT_HALF_BITS, _ONE_BITS, _EXPONENT = np.int32(0x3F3504F3), np.int32(0x3F800000), np.int32(-(2**23))
_EXP_MIN, _EXP_MAX = np.float32(-87.3), np.float32(88.0)
_ROUND_64, _LOG2_E_64 = 1.5 * 2.0**52, 1.4426950408889634
_LN2_HIGH_64, _LN2_LOW_64 = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_LOG_FACTORIAL = np.array([math.lgamma(x + 1.0) for x in range(256)])
_SMALL_COUNT = 8  # up to here a rising factorial is a product
_STIRLING = 16.0  # from here on the asymptotic series below are exact to float64


@fused
def exp32(x):
    """Float32 exponential: 0 below -87.3 (to 1e-38), infinite above 88, NaN for NaN.

    Examples
    --------
    >>> import numpy as np
    >>> round(float(exp32(np.float32(1.0))), 6)
    2.718282
    """
    y = _EXP_MIN if x < _EXP_MIN else x
    shifted = np.float32(y * _LOG2_E + _ROUND)
    k = np.float32(shifted - _ROUND)
    r = y - k * _LN2_HIGH - k * _LN2_LOW
    p = np.float32(0.0013927685)
    p = p * r + np.float32(0.00836438)
    p = p * r + np.float32(0.041666545)
    p = p * r + np.float32(0.1666657)
    p = p * r + np.float32(0.5)
    p = p * r * r + r + np.float32(1)
    scale = np.int32((np.float32(shifted).view(np.int32) + np.int32(127)) << np.int32(23))
    value = p * np.int32(scale).view(np.float32)
    return y * np.float32(np.inf) if y > _EXP_MAX else value


@fused
def exp_below32(x):
    """Float32 exponential of x <= 0, as :func:`exp32` there, in fewer operations.

    Examples
    --------
    >>> import numpy as np
    >>> round(float(exp_below32(np.float32(-1.0))), 6)
    0.367879
    """
    y = _EXP_MIN if x < _EXP_MIN else x
    shifted = np.float32(y * _LOG2_E + _ROUND)
    k = np.float32(shifted - _ROUND)
    r = y - k * _LN2_HIGH - k * _LN2_LOW
    p = np.float32(0.0013927685)
    p = p * r + np.float32(0.00836438)
    p = p * r + np.float32(0.041666545)
    p = p * r + np.float32(0.1666657)
    p = p * r + np.float32(0.5)
    p = p * r + np.float32(1)
    p = p * r + np.float32(1)
    bits = np.int32(np.float32(p).view(np.int32) + np.int32(np.float32(shifted).view(np.int32) << np.int32(23)))
    return np.int32(bits).view(np.float32)


@fused
def _log_tail(f):
    """Float32 [log(1 + f) - f + f²/2] / f³ for f in [√½ - 1, √2 - 1]."""
    p = np.float32(-0.07900017)
    p = p * f + np.float32(0.12656042)
    p = p * f - np.float32(0.13012227)
    p = p * f + np.float32(0.14211397)
    p = p * f - np.float32(0.16640007)
    p = p * f + np.float32(0.20001112)
    p = p * f - np.float32(0.25000328)
    return p * f + np.float32(0.3333333)


@fused
def _log1p_reduced(f):
    """Float32 log(1 + f) for f in [√½ - 1, √2 - 1]."""
    return f + f * f * (_log_tail(f) * f - np.float32(0.5))


@fused
def log1p32(x):
    """Float32 log(1 + x) for x >= 0, accurate relative to its value however small x is.

    Examples
    --------
    >>> import numpy as np
    >>> print(f"{log1p32(np.float32(1e-9)):.6e}")
    1.000000e-09
    """
    y = np.float32(np.float32(1) + x)
    k = np.int32(np.int32(np.float32(y).view(np.int32) - _SQRT_HALF_BITS) >> np.int32(23))
    scale_bits = np.int32(np.int32(np.int32(127) - k) << np.int32(23))
    scale = np.int32(scale_bits).view(np.float32)  # 2^-k, so that (1 + x) scale lies in [√½, √2)
    f = x * scale + (scale - np.float32(1))
    return np.float32(k) * _LN2 + _log1p_reduced(f)


@fused
def log1p_terms32(r):
    """Float32 log(1 + r), 1 / (1 + r), q = r / (1 + r) and log(1 + r) - q for r from 0 to 1e37.

    All are accurate relative to their values: where q nearly cancels log(1 + r) = r + rest, r - q is taken as r q.

    Examples
    --------
    >>> import numpy as np
    >>> log, reciprocal, q, excess = log1p_terms32(np.float32(1e-4))
    >>> print(f"{log:.5e} {reciprocal:.5e} {q:.5e} {excess:.4e}")
    9.99950e-05 9.99900e-01 9.99900e-05 4.9993e-09
    """
    y = np.float32(np.float32(1) + r)
    reciprocal = np.float32(1) / y
    q = r * reciprocal
    exponent = np.int32(np.int32(np.float32(y).view(np.int32) - _SQRT_HALF_BITS) & _EXPONENT)
    scale = np.int32(_ONE_BITS - exponent).view(np.float32)
    f = r * scale + (scale - np.float32(1))
    rest = f * f * (_log_tail(f) * f - np.float32(0.5))
    whole = np.float32(exponent) * _LN2_PER_BIT
    lead = r * q if exponent == np.int32(0) else whole + (f - q)
    return whole + (f + rest), reciprocal, q, rest + lead


@fused
def log32(x):
    """Float32 natural logarithm of a normal positive number (from 1.2e-38).

    Examples
    --------
    >>> import numpy as np
    >>> round(float(log32(np.float32(10.0))), 6)
    2.302585
    """
    y = np.float32(x)
    k = np.int32(np.int32(np.float32(y).view(np.int32) - _SQRT_HALF_BITS) >> np.int32(23))
    scale_bits = np.int32(np.int32(np.int32(127) - k) << np.int32(23))
    scale = np.int32(scale_bits).view(np.float32)
    return np.float32(k) * _LN2 + _log1p_reduced(y * scale - np.float32(1))


@fused
def log_ratio32(q, v):
    """Float32 log q and log q - v for q > 0, where v = q - 1 is known better than by that subtraction.

    The third value says whether q is near 1 (from √½ to √2), where the second is accurate relative to itself.

    Examples
    --------
    >>> import numpy as np
    >>> log, rest, near = log_ratio32(np.float32(1.0), np.float32(1e-10))
    >>> print(f"{log:.4e} {rest:.4e} {bool(near)}")
    1.0000e-10 -5.0000e-21 True
    """
    y = np.float32(q)
    k = np.int32(np.int32(np.float32(y).view(np.int32) - _SQRT_HALF_BITS) >> np.int32(23))
    scale_bits = np.int32(np.int32(np.int32(127) - k) << np.int32(23))
    scale = np.int32(scale_bits).view(np.float32)
    near = k == np.int32(0)
    f = v if near else y * scale - np.float32(1)
    rest = f * f * (_log_tail(f) * f - np.float32(0.5))
    log = np.float32(k) * _LN2 + (f + rest)
    return log, rest if near else log - v, near


@fused
def softplus32(x):
    """Float32 log(1 + e^x).

    Examples
    --------
    >>> import numpy as np
    >>> round(float(softplus32(np.float32(0.0))), 6)
    0.693147
    """
    return max(x, np.float32(0)) + log1p32(exp32(-abs(x)))


@fused
def log1p_excess32(q, log1p_r):
    """Float32 log(1 + r) - q for r >= 0, with q = r / (1 + r) and log(1 + r) given; ½q² + ⅓q³ + … where they cancel.

    Examples
    --------
    >>> import numpy as np
    >>> print(f"{log1p_excess32(np.float32(1e-4), np.float32(1.00005e-4)):.4e}")
    5.0003e-09
    """
    p = np.float32(1 / 8)
    p = p * q + np.float32(1 / 7)
    p = p * q + np.float32(1 / 6)
    p = p * q + np.float32(1 / 5)
    p = p * q + np.float32(1 / 4)
    p = p * q + np.float32(1 / 3)
    p = p * q + np.float32(1 / 2)
    return p * q * q if q < np.float32(0.125) else log1p_r - q


@fused
def exp_below(x):
    """Float64 exponential of x <= 0, at least 1e-304: without the branches and the subnormal numbers of the usual one.

    Examples
    --------
    >>> float(exp_below(-1.0)).hex() == float.hex(0.36787944117144233)
    True
    """
    y = -700.0 if x < -700.0 else x
    shifted = y * _LOG2_E_64 + _ROUND_64
    k = shifted - _ROUND_64
    r = y - k * _LN2_HIGH_64 - k * _LN2_LOW_64
    p = 1 / 479001600
    p = p * r + 1 / 39916800
    p = p * r + 1 / 3628800
    p = p * r + 1 / 362880
    p = p * r + 1 / 40320
    p = p * r + 1 / 5040
    p = p * r + 1 / 720
    p = p * r + 1 / 120
    p = p * r + 1 / 24
    p = p * r + 1 / 6
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    bits = np.int64(np.float64(p).view(np.int64) + np.int64(np.float64(shifted).view(np.int64) << np.int64(52)))
    return np.int64(bits).view(np.float64)


@exact
def softplus(x):
    """Float64 log(1 + e^x).

    Examples
    --------
    >>> round(softplus(0.0), 6)
    0.693147
    """
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


@exact
def log1p_minus(w):
    """Float64 log(1 + w) - w for w > -1, without cancellation near 0.

    Examples
    --------
    >>> print(f"{log1p_minus(1e-6):.6e}")
    -4.999997e-13
    """
    if abs(w) > 0.25:
        return math.log1p(w) - w
    # With s = w / (2 + w): log(1 + w) = 2 atanh(s), and w = 2s / (1 - s).
    s = w / (2.0 + w)
    s2 = s * s
    tail = 0.0
    for n in range(21, 1, -2):
        tail = tail * s2 + 1.0 / n
    return 2.0 * s * s2 * tail - s * w


@exact
def _stirling_correction(z):
    """Float64 lgamma(z) - (z - ½) log z + z - ½ log 2π for z >= 16."""
    u = 1.0 / (z * z)
    p = -1.0 / 360.0 + u * (1.0 / 1260.0 + u * (-1.0 / 1680.0 + u * (1.0 / 1188.0 - u * (691.0 / 360360.0))))
    return (1.0 / 12.0 + u * p) / z


@exact
def digamma(z):
    """Float64 digamma function of z > 0.

    Examples
    --------
    >>> round(digamma(1.0), 6)
    -0.577216
    """
    shift = 0.0
    while z < _STIRLING:
        shift += 1.0 / z
        z += 1.0
    u = 1.0 / (z * z)
    tail = u * (1.0 / 12.0 - u * (1.0 / 120.0 - u * (1.0 / 252.0 - u * (1.0 / 240.0 - u * (1.0 / 132.0)))))
    return math.log(z) - 0.5 / z - tail - shift


@exact
def log_rising(x, theta):
    """Float64 lgamma(x + θ) - lgamma(θ) for x >= 0, integer or not, exact at every θ > 0.

    Examples
    --------
    >>> round(log_rising(3.0, 2.0), 6)  # log(2 * 3 * 4)
    3.178054
    """
    if x <= _SMALL_COUNT and x == math.floor(x) and theta < 1e30:
        product = 1.0
        for k in range(int(x)):
            product *= theta + k
        return math.log(product) if product > 0 else math.log(theta) + math.lgamma(x)
    if x + theta < _STIRLING:
        return math.lgamma(x + theta) - math.lgamma(theta)
    product = 1.0
    while theta < _STIRLING:  # the series below needs a large θ
        product *= theta
        theta += 1.0
        x -= 1.0
    u = x / theta
    correction = _stirling_correction(theta + x) - _stirling_correction(theta)
    return math.log(product) + x * math.log(theta) + theta * log1p_minus(u) + (x - 0.5) * math.log1p(u) + correction


@exact
def _digamma_difference(x, theta):
    """Float64 digamma(x + θ) - digamma(θ) - log(1 + x / θ) for θ >= 16, by the difference of two series."""
    a, b = 1.0 / theta, 1.0 / (theta + x)
    fall = x * a * b  # a - b
    s, p = a * a + b * b, a * a * b * b
    # a^2n - b^2n = (a² - b²) (a^(2n-2) + … + b^(2n-2))
    tail = 1.0 / 12.0 - s / 120.0 + (s * s - p) / 252.0 - s * (s * s - 2.0 * p) / 240.0
    return fall * (0.5 + (a + b) * tail)


@exact
def digamma_rising(x, theta):
    """Float64 digamma(x + θ) - digamma(θ) for x >= 0, integer or not, exact at every θ > 0.

    Examples
    --------
    >>> round(digamma_rising(3.0, 2.0), 6)  # 1/2 + 1/3 + 1/4
    1.083333
    """
    if x <= _SMALL_COUNT and x == math.floor(x):
        total = 0.0
        for k in range(int(x)):
            total += 1.0 / (theta + k)
        return total
    if x + theta < _STIRLING:
        return digamma(x + theta) - digamma(theta)
    steps = 0.0
    while theta < _STIRLING:
        steps += 1.0 / theta
        theta += 1.0
        x -= 1.0
    return steps + math.log1p(x / theta) + _digamma_difference(x, theta)


@exact
def digamma_rising_excess(x, theta):
    """Float64 digamma(x + θ) - digamma(θ) - log(1 + x / θ), which is of order x / θ² when θ is large.

    Examples
    --------
    >>> print(f"{digamma_rising_excess(1.0, 1e6):.4e}")
    5.0000e-13
    """
    if theta < _STIRLING:
        return digamma_rising(x, theta) - math.log1p(x / theta)
    return _digamma_difference(x, theta)


@exact
def log_factorial(x):
    """Float64 log x!, for integers from a table, else lgamma(x + 1).

    Examples
    --------
    >>> round(log_factorial(5.0), 6)
    4.787492
    """
    if 0 <= x < 256 and x == math.floor(x):
        return _LOG_FACTORIAL[int(x)]
    return math.lgamma(x + 1.0)
