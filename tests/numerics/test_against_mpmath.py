"""Every public log-pmf and gradient, and every fused head, entry by entry against mpmath with 60 digits.

SciPy is no oracle here: at these corners its own float64 is off.
"""

from functools import cache

import mpmath as mp
import numpy as np
import pytest

from scanpy_scvi.numerics import negative_binomial, poisson, zero_inflated
from scanpy_scvi.numerics.sparse import CSRRows

X = np.float32([0, 1, 5, 100, 1e4])
MU = np.float32([1e-6, 1e-3, 0.1, 1, 4.7, 30, 1e3, 1e5])
THETA = np.float32([1e-4, 1e-2, 0.3, 1, 7.9, 16.1, 1e3, 1e5, 1e7])
H = np.float32([-20, -8, -1, 0, 2, 20])
GRID = [g.astype(np.float32).ravel() for g in np.meshgrid(X, MU, THETA, indexing="ij")]
RTOL = ATOL = 1e-5


@cache
def nb_entry(x, mu, theta):
    """(log p, d/dmu, d/dtheta) with 60 digits."""
    with mp.workdps(60):
        x, mu, theta = mp.mpf(x), mp.mpf(mu), mp.mpf(theta)
        log_p = (
            mp.loggamma(x + theta)
            - mp.loggamma(theta)
            - mp.loggamma(x + 1)
            + theta * mp.log(theta / (theta + mu))
            + x * mp.log(mu / (theta + mu))
        )
        d_theta = mp.digamma(x + theta) - mp.digamma(theta) + mp.log(theta / (theta + mu)) + (mu - x) / (theta + mu)
        return log_p, (x - mu) / mu * theta / (theta + mu), d_theta


@cache
def nb_table():
    return [nb_entry(*(float(v) for v in entry)) for entry in zip(*GRID, strict=True)]


@cache
def zinb_table(h):
    """(log p, d/dmu, d/dtheta, d/dh) at every grid point, from the NB table and the definition."""
    rows = []
    with mp.workdps(60):
        pi = 1 / (1 + mp.exp(-mp.mpf(h)))
        for x, (log_p, d_mu, d_theta) in zip(GRID[0], nb_table(), strict=True):
            if x > 0:
                rows.append((mp.log(1 - pi) + log_p, d_mu, d_theta, -pi))
                continue
            nb_zero = mp.exp(log_p)
            p = pi + (1 - pi) * nb_zero
            share = (1 - pi) * nb_zero / p
            rows.append((mp.log(p), share * d_mu, share * d_theta, pi * (1 - pi) * (1 - nb_zero) / p))
    return rows


def column(table, k):
    return np.array([float(row[k]) for row in table])


def assert_close(got, want, rtol=RTOL, atol=ATOL):
    assert np.asarray(got).dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)


def test_poisson():
    x, mu, _ = GRID
    with mp.workdps(60):
        want = [
            mp.mpf(float(a)) * mp.log(mp.mpf(float(m))) - mp.mpf(float(m)) - mp.loggamma(mp.mpf(float(a)) + 1)
            for a, m in zip(x, mu, strict=True)
        ]
    assert_close(poisson.logpmf(x, mu), np.array(want, float))
    assert_close(poisson.gradient(x, mu), x.astype(float) / mu - 1)


def test_negative_binomial():
    assert_close(negative_binomial.logpmf(*GRID), column(nb_table(), 0))
    d_mu, d_theta = negative_binomial.gradient(*GRID)
    assert_close(d_mu, column(nb_table(), 1))
    # At large θ the derivative is of order 1 / θ²: hold it to its own size.
    assert_close(d_theta, column(nb_table(), 2), atol=1e-22)


@pytest.mark.parametrize("h", H)
def test_zero_inflated(h):
    table = zinb_table(float(h))
    assert_close(zero_inflated.logpmf(*GRID, h), column(table, 0))
    d_mu, d_theta, d_zero = zero_inflated.gradient(*GRID, h)
    assert_close(d_mu, column(table, 1))
    assert_close(d_theta, column(table, 2), atol=1e-22)
    assert_close(d_zero, column(table, 3), atol=1e-12)


def one_gene(x, mu, theta):
    """Arguments of a head for cells of a single gene, whose softmax is 1, and the μ, θ that float32 logs stand for."""
    n = len(x)
    positive = x > 0
    rows = CSRRows(np.r_[0, np.cumsum(positive)], np.zeros(positive.sum(), np.int32), x[positive])
    return rows, np.zeros((n, 1), np.float32), np.log(mu), np.log(theta)[:, None], np.arange(n)


@pytest.mark.parametrize("h", [None, *H])
def test_heads(h):
    x, mu, theta = GRID
    rows, logits, log_mu, log_theta, cells = one_gene(x, mu, theta)
    if h is None:
        head, table = negative_binomial.softmax_head(rows, logits, log_mu, log_theta, cells), nb_table()
    else:
        zero_logits = np.full_like(logits, h)
        head = zero_inflated.softmax_head(rows, logits, log_mu, log_theta, cells, zero_logits)
        table = zinb_table(float(h))
        assert_close(head.zero_logits[:, 0], -column(table, 3), rtol=1e-5, atol=2e-6)
    # log μ and log θ were rounded to float32, by up to 5e-7: allow the likelihood its slope times that.
    slope, theta_slope = column(table, 1) * mu, column(table, 2) * theta
    rounding = 6e-7 * (np.abs(slope) + np.abs(theta_slope))
    np.testing.assert_array_less(np.abs(head.nll + column(table, 0)), 1e-5 + 1e-5 * np.abs(column(table, 0)) + rounding)
    # The derivatives in η and t; their own slopes are at most μ and x.
    np.testing.assert_array_less(np.abs(head.log_library + slope), 1e-5 + 1e-5 * np.abs(slope) + 1e-6 * (mu + x))
    bound = 1e-5 + 1e-4 * np.abs(theta_slope) + 1e-6 * np.minimum(mu + x, theta * np.log1p((mu + x) / theta))
    np.testing.assert_array_less(np.abs(head.log_theta[:, 0] + theta_slope), bound)
