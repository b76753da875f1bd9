"""Likelihood of one gene's zero-inflated negative binomial, and its maximum by a bounded BFGS method.

The search moves in coordinates in which a vanishing inflation and a vanishing dispersion are ordinary points at a
bound, and in which the first coordinate is nearly independent of the others:

    a = log[(1 - π) m],    u = log(1 + 1/θ),    v = -log(1 - π)

so that m = e^(a + v), θ = 1 / (e^u - 1), h = log(e^v - 1). With c = log NB(0), an observed zero has
log p = log(1 - e^-v + e^(c - v)) and any other count log p = log NB(x) - v.
"""

from __future__ import annotations

import math

import numpy as np

from .._jit import exact
from ..negative_binomial.fitting import THETA_MAX, THETA_MIN
from ..negative_binomial.pmf import log_probability, log_probability_slopes

_LOW = np.array([-40.0, math.log1p(1.0 / THETA_MAX), 0.0])
_HIGH = np.array([40.0, math.log1p(1.0 / THETA_MIN), 20.0])
_GAIN = 1e-8  # stop where the log-likelihood would rise by less


@exact
def parameters(point):
    """Mean and θ of the negative binomial, and h, at a point (a, u, v)."""
    return math.exp(point[0] + point[2]), 1.0 / math.expm1(point[1]), _log_expm1(point[2])


@exact
def _log_expm1(v):
    return v + math.log(-math.expm1(-v)) if v > 0 else -math.inf


@exact
def _objective(x, s, w, size, point, gradient, information):
    """Log-likelihood at (a, u, v); writes its gradient and the sum of squares of the entries' own gradients."""
    mean, theta, h = parameters(point)
    v, parts = point[2], np.empty(3)
    gradient[:], information[:] = 0.0, 0.0
    value = 0.0
    for j in range(size):
        mu, weight = s[j] * mean, w[j]
        if x[j] > 0:
            value += weight * (log_probability(x[j], mu, theta) - v)
            d_mu, d_theta = log_probability_slopes(x[j], mu, theta)
            a, b, c = d_mu * mu, d_theta * theta, -1.0
        else:
            r = mu / theta
            log1p_r, q = math.log1p(r), r / (1.0 + r)
            fall = theta * log1p_r  # -log NB(0)
            gap = h + fall
            tail = math.exp(-abs(gap))
            log_p = max(gap, 0.0) - fall + math.log1p(tail) - v
            value += weight * log_p
            plain = (tail if gap > 0 else 1.0) / (1.0 + tail)  # share of this zero that is not inflated
            a, b = -plain * theta * q, -plain * theta * (log1p_r - q)
            c = -math.exp(-v - log_p) * math.expm1(-fall) if gap > 0 else plain * math.expm1(min(fall, 600.0))
        b *= -(1.0 + theta)
        c += a
        parts[0], parts[1], parts[2] = a, b, c
        for k in range(3):
            gradient[k] += weight * parts[k]
            for i in range(3):
                information[k, i] += weight * parts[k] * parts[i]
    return value


@exact
def _direction(curvature, gradient, point, out):
    """Solve curvature x out = gradient over the coordinates that no bound stops, by elimination; return its slope."""
    m = curvature.copy()
    for a in range(3):
        held = (point[a] <= _LOW[a] and gradient[a] <= 0) or (point[a] >= _HIGH[a] and gradient[a] >= 0)
        out[a] = 0.0 if held else gradient[a]
        m[a, a] = m[a, a] * (1.0 + 1e-9) + 1e-100
        if held:
            m[a, :], m[:, a] = 0.0, 0.0
            m[a, a] = 1.0
    for a in range(3):
        for b in range(a + 1, 3):
            factor = m[b, a] / m[a, a]
            out[b] -= factor * out[a]
            for c in range(a, 3):
                m[b, c] -= factor * m[a, c]
    for a in range(2, -1, -1):
        for b in range(a + 1, 3):
            out[a] -= m[a, b] * out[b]
        out[a] /= m[a, a]
    return (out * gradient).sum()


@exact
def _update(curvature, step, fall):
    """BFGS: fold into the curvature how much the gradient fell along a step."""
    along = (step * fall).sum()
    bent = np.zeros(3)
    for a in range(3):
        for b in range(3):
            bent[a] += curvature[a, b] * step[b]
    before = (step * bent).sum()
    if along > 1e-8 * before and before > 0:
        for a in range(3):
            for b in range(3):
                curvature[a, b] += fall[a] * fall[b] / along - bent[a] * bent[b] / before


@exact
def maximise(x, s, w, size, point):
    """BFGS uphill from point, which it moves, within the bounds; return the log-likelihood.

    The curvature starts as the information of the entries' own gradients (Berndt, Hall, Hall and Hausman, 1974). A
    coordinate that a bound stops is left out of the step (Bertsekas, 1982).
    """
    gradient, trial_gradient, direction = np.empty(3), np.empty(3), np.empty(3)
    curvature, information = np.empty((3, 3)), np.empty((3, 3))
    value = _objective(x, s, w, size, point, gradient, curvature)
    fresh, stalled = True, 0
    for _ in range(100):
        uphill = _direction(curvature, gradient, point, direction)
        length, accepted = min(1.0, 2.0 / max(np.abs(direction).max(), 1e-300)), False
        if uphill > _GAIN:
            for _ in range(15):
                trial = np.minimum(np.maximum(point + length * direction, _LOW), _HIGH)
                trial_value = _objective(x, s, w, size, trial, trial_gradient, information)
                if trial_value >= value + 1e-4 * (gradient * (trial - point)).sum():
                    accepted = True
                    break
                length *= 0.4
        if accepted:
            stalled = stalled + 1 if trial_value - value < _GAIN else 0
            _update(curvature, trial - point, gradient - trial_gradient)
            point[:], gradient[:], value, fresh = trial, trial_gradient, trial_value, False
        if stalled == 2 or (fresh and not accepted):
            break
        if not accepted:
            _objective(x, s, w, size, point, gradient, curvature)
            fresh = True
    return value
