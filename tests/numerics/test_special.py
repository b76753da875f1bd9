"""Scalar functions against mpmath."""

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanpy_scvi.numerics import special

f32 = np.float32


def relative_error(function, oracle, values):
    got = np.array([function(v) for v in values], float)
    with mp.workdps(40):
        want = np.array([float(oracle(mp.mpf(float(v)))) for v in values])
    return np.abs(got / want - 1).max()


def test_float32_functions_over_their_range():
    rng = np.random.default_rng(0)
    assert relative_error(special.exp32, mp.exp, rng.uniform(-87, 88, 300).astype(f32)) < 2e-7
    spread = np.exp(rng.uniform(-80, 80, 300)).astype(f32)
    assert relative_error(special.log1p32, mp.log1p, spread) < 2e-7
    assert relative_error(special.log32, mp.log, spread[np.abs(spread - 1) > 0.1]) < 2e-7
    assert (
        relative_error(special.softplus32, lambda v: mp.log1p(mp.exp(v)), rng.uniform(-60, 80, 300).astype(f32)) < 3e-7
    )

    def excess(r):
        return special.log1p_excess32(f32(r / (1 + r)), special.log1p32(r))

    assert (
        relative_error(excess, lambda r: mp.log1p(r) - r / (1 + r), np.exp(rng.uniform(-15, 20, 300)).astype(f32))
        < 3e-6
    )


def test_float64_exponential_below_zero():
    rng = np.random.default_rng(1)
    assert relative_error(special.exp_below, mp.exp, -np.exp(rng.uniform(-20, np.log(699), 300))) < 5e-16
    assert special.exp_below(0.0) == 1
    assert 0 < special.exp_below(-np.inf) == special.exp_below(-701.0) < 1e-303


def test_log_ratio_keeps_small_differences():
    for v in (1e-12, -1e-7, 0.2, -0.25, 3.0, -0.9, 1e8):
        log, rest, near = special.log_ratio32(f32(1 + v), f32(v))
        with mp.workdps(40):
            exact = mp.log1p(mp.mpf(float(f32(v))))
            assert log == pytest.approx(float(exact), rel=3e-7)
            assert rest == pytest.approx(float(exact - mp.mpf(float(f32(v)))), rel=3e-6)
        assert bool(near) == (abs(v) < 0.29)


def test_float32_ends():
    assert special.exp32(f32(-1e30)) < 1.3e-38
    assert special.exp32(f32(89)) == np.inf
    assert special.exp32(f32(0)) == 1
    assert special.log1p32(f32(0)) == 0
    for function in (special.exp32, special.log1p32, special.log32, special.softplus32):
        assert np.isnan(function(f32(np.nan)))


@given(
    x=st.one_of(st.integers(0, 20_000).map(float), st.floats(1e-6, 2e4)),
    log_theta=st.floats(np.log(1e-4), np.log(1e12)),
)
@settings(max_examples=300, deadline=None)
def test_rising_differences(x, log_theta):
    theta = float(np.exp(log_theta))
    with mp.workdps(60):
        a, b = mp.mpf(x), mp.mpf(theta)
        rising = mp.loggamma(a + b) - mp.loggamma(b)
        slope = mp.digamma(a + b) - mp.digamma(b)
        excess = slope - mp.log1p(a / b)
    # Float64 holds sums of terms of size log θ and log x.
    assert special.log_rising(x, theta) == pytest.approx(float(rising), rel=1e-12, abs=1e-13)
    assert special.digamma_rising(x, theta) == pytest.approx(float(slope), rel=1e-9, abs=1e-14)
    assert special.digamma_rising_excess(x, theta) == pytest.approx(float(excess), rel=1e-7, abs=1e-14)


@given(w=st.floats(-0.999, 50))
@settings(max_examples=200, deadline=None)
def test_log1p_minus(w):
    with mp.workdps(60):
        exact = mp.log1p(mp.mpf(w)) - mp.mpf(w)
    assert special.log1p_minus(w) == pytest.approx(float(exact), rel=1e-12)


def test_small_helpers():
    for x in (0.0, 1.0, 5.0, 255.0, 256.0, 1e4, 0.5, 17.3):
        assert special.log_factorial(x) == pytest.approx(float(mp.loggamma(x + 1)), rel=1e-13, abs=1e-15)
    for z in (1e-4, 0.3, 1.0, 9.9, 40.0, 1e8):
        assert special.digamma(z) == pytest.approx(float(mp.digamma(z)), rel=1e-12)
    for v in (-700.0, -30.0, 0.0, 30.0, 800.0):
        assert special.softplus(v) == pytest.approx(float(mp.log1p(mp.exp(v))), rel=1e-14)
