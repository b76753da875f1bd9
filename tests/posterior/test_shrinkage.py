import itertools

import numpy as np
import pytest
from scipy import stats

from scanpy_scvi.posterior import shrinkage
from scanpy_scvi.posterior.effects import expected_fdr
from scanpy_scvi.posterior.shrinkage import posterior_shifts

DELTA = 0.25


def effects(n=10_000, df=8.0, seed=0):
    rng = np.random.default_rng(seed)
    beta = np.where(rng.random(n) < 0.9, 0.0, rng.normal(0.2, 1, n))
    s = rng.uniform(0.1, 0.5, n)
    return beta, beta + s * (rng.standard_t(df, n) if np.isfinite(df) else rng.normal(size=n)), s


@pytest.mark.parametrize("df", [4.0, np.inf])
def test_equals_integration_on_a_grid(df):
    _, b, s = effects(300, df)
    found = posterior_shifts(b, s, df, delta=DELTA, interval=0.9)
    ends = shrinkage._component_ends(b, s)
    pieces = shrinkage._pieces(ends, DELTA)
    mass, _ = shrinkage._piece_integrals(b, s, df, pieces)
    density, w0 = shrinkage._fit_prior(mass, pieces, ends)
    assert w0 == found.null_share
    assert w0 + ((pieces.high - pieces.low) * density).sum() == pytest.approx(1)
    edges = np.r_[pieces.low, pieces.high[-1:]]
    t = stats.norm if np.isinf(df) else stats.t(df)
    for g in (0, int(b.argmax()), int(b.argmin()), 7):
        x = np.concatenate([np.linspace(low, high, 400, endpoint=False) for low, high in itertools.pairwise(edges)])
        x = x + np.repeat(np.diff(edges) / 800, 400)  # midpoints
        weight = np.repeat(density * ~pieces.is_null * (pieces.high - pieces.low) / 400, 400)
        weight = weight * t.pdf((b[g] - x) / s[g]) / s[g]
        at_null = w0 * t.pdf(b[g] / s[g]) / s[g]
        total = weight.sum() + at_null
        assert found.p_up[g] == pytest.approx(weight[x > DELTA].sum() / total, rel=1e-3, abs=1e-6)
        assert found.p_down[g] == pytest.approx(weight[x < -DELTA].sum() / total, rel=1e-3, abs=1e-6)
        assert found.mean[g] == pytest.approx((x * weight).sum() / total, rel=1e-3, abs=1e-4)
        for q, value in ((0.05, found.low[g]), (0.95, found.high[g])):
            below = weight[x < value].sum() / total + (at_null / total if value > 0 else 0)
            if value == 0:  # the quantile lies in the atom
                assert below <= q + 1e-3 <= below + at_null / total + 2e-3
            else:
                assert below == pytest.approx(q, abs=3e-3)


@pytest.mark.parametrize("df", [3.0, 8.0, np.inf])
def test_probabilities_are_what_they_say(df):
    beta, b, s = effects(df=df)
    found = posterior_shifts(b, s, df, delta=DELTA, interval=0.9)
    up = found.p_up > found.p_down
    differs, right = np.maximum(found.p_up, found.p_down), np.where(up, beta >= DELTA, beta < -DELTA)
    for low, high in ((0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1.01)):
        inside = (differs >= low) & (differs < high)
        chance = np.sqrt(np.mean(differs[inside] * (1 - differs[inside])) / inside.sum())
        assert right[inside].mean() == pytest.approx(differs[inside].mean(), abs=0.01 + 3 * chance)
    called = expected_fdr(differs) <= 0.05
    assert abs((~right[called]).mean() - 0.05) < 0.01 + 3 * np.sqrt(0.05 * 0.95 / called.sum())
    assert ((found.low <= beta) & (beta <= found.high)).mean() >= 0.9
    assert np.mean((found.mean - beta) ** 2) < 0.5 * np.mean((b - beta) ** 2)


def test_without_the_prior_most_calls_would_be_false():
    beta, b, s = effects()
    flat = np.maximum(stats.t.sf((DELTA - b) / s, 8), stats.t.cdf((-DELTA - b) / s, 8))
    called = expected_fdr(flat) <= 0.05
    assert (np.abs(beta[called]) < DELTA).mean() > 0.3


def test_signs_are_alike():
    _, b, s = effects(500)
    found, mirrored = (posterior_shifts(x, s, 8.0, delta=DELTA, interval=0.9) for x in (b, -b))
    np.testing.assert_allclose(found.p_up, mirrored.p_down, atol=1e-6)
    np.testing.assert_allclose(found.mean, -mirrored.mean, atol=1e-6)
    np.testing.assert_allclose(found.low, -mirrored.high, atol=1e-4)


def test_far_effects_stay_where_they_are():
    _, b, s = effects(500)
    b[0], b[1] = 60.0, -60.0
    for df in (5.0, np.inf):
        found = posterior_shifts(b, s, df, delta=DELTA, interval=0.95)
        assert all(np.isfinite(values).all() for values in found[:5])
        np.testing.assert_allclose(found.mean[:2], b[:2], rtol=0.05)
        assert found.low[0] < 60 < found.high[0]
        assert found.high[0] - found.low[0] < 20 * s[0]
        assert found.p_up[0] > 0.999
        assert found.p_down[1] > 0.999


def test_all_null():
    rng = np.random.default_rng(0)
    found = posterior_shifts(rng.normal(0, 0.3, 2000), np.full(2000, 0.3), np.inf, delta=DELTA, interval=0.95)
    assert not (expected_fdr(np.maximum(found.p_up, found.p_down)) <= 0.05).any()
    nothing = posterior_shifts(np.zeros(5), np.ones(5), 4.0, delta=0.0, interval=0.95)
    np.testing.assert_allclose(nothing.mean, 0, atol=1e-12)
    assert (nothing.p_up + nothing.p_down <= 1).all()
