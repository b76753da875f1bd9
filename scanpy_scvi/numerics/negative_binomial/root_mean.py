"""Expected square root of a negative binomial count."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .._jit import exact

LOG_MU = (-18.0, 0.0625, 513)
LOG_THETA = (-8.0, 0.125, 161)
"""Start, step and number of the points of the table."""
_NODES = np.arange(-25.0, 25.0, 0.125)


def root_mean(log_mu: np.ndarray, log_theta: np.ndarray) -> np.ndarray:
    r"""Expected root of counts, :math:`E \sqrt{X}` for X ~ NB(mean mu, inverse dispersion theta), float32.

    .. math:: E \sqrt X = \frac{1}{\sqrt\pi} \int_0^\infty \frac{1 - G(e^{-u^2})}{u^2} \, du, \qquad
        G(s) = \left(1 + \frac{\mu (1 - s)}{\theta}\right)^{-\theta}

    since :math:`\sqrt x` is that integral for :math:`G(s) = s^x`. A table of its logarithm is interpolated linearly;
    the relative error is below 3e-4.

    Parameters
    ----------
    log_mu
        (n, n_genes), float32.
    log_theta
        (n, n_genes) or (1, n_genes), float32; infinite for a Poisson count.

    Returns
    -------
    (n, n_genes), float32.

    Examples
    --------
    >>> import numpy as np
    >>> root_mean(np.log(np.float32([[1e-3, 1e4]])), np.float32([[0.0, 12.0]])).round(4)
    array([[1.00000e-03, 9.99987e+01]], dtype=float32)
    """
    out = np.empty(log_mu.shape, np.float32)
    _interpolated(log_mu, np.broadcast_to(log_theta, log_mu.shape), _table(), out)
    return out


@lru_cache(maxsize=1)
def _table() -> np.ndarray:
    """Logarithm of the expected root; the trapezoidal rule in log u is as good as exact."""
    mu = np.exp(LOG_MU[0] + LOG_MU[1] * np.arange(LOG_MU[2]))
    theta = np.exp(LOG_THETA[0] + LOG_THETA[1] * np.arange(LOG_THETA[2]))
    gone = -np.expm1(-np.exp(2 * _NODES))  # 1 - exp(-u^2)
    weight = np.exp(-_NODES) * (_NODES[1] - _NODES[0]) / np.sqrt(np.pi)
    rows = [-np.expm1(-t * np.log1p(np.multiply.outer(mu, gone) / t)) @ weight for t in theta]
    return np.log(np.stack(rows, axis=1)).astype(np.float32)


@exact
def _interpolated(log_mu: np.ndarray, log_theta: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    n, n_genes = log_mu.shape
    for i in range(n):
        for g in range(n_genes):
            a = (log_mu[i, g] - LOG_MU[0]) / LOG_MU[1]
            b = (log_theta[i, g] - LOG_THETA[0]) / LOG_THETA[1]
            j = min(max(int(np.floor(a)), 0), LOG_MU[2] - 2)
            b = min(max(b, 0.0), LOG_THETA[2] - 1.0)  # beyond its ends theta no longer matters
            k = min(int(b), LOG_THETA[2] - 2)
            a -= j  # outside of [0, 1] beyond the ends of the table: a straight line in logarithms
            b -= k
            low = table[j, k] * (1 - b) + table[j, k + 1] * b
            high = table[j + 1, k] * (1 - b) + table[j + 1, k + 1] * b
            out[i, g] = np.exp(low * (1 - a) + high * a)
