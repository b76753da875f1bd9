import numpy as np
import pytest
from scipy.stats import kstest, rankdata

from scanpy_scvi.posterior.bound_trend import BoundTrend, percentile


def test_percentiles_are_ranks():
    x = np.array([3.0, 1.0, 2.0, 2.0])
    np.testing.assert_allclose(percentile(x, x), rankdata(x) / 5)
    np.testing.assert_allclose(percentile(np.array([0.0, 2.0, 9.0]), x), [0.1, 0.5, 0.9])


def test_what_depends_on_the_total_and_the_batch_is_taken_away():
    """Bounds whose level and spread depend on total and batch: afterwards they depend on neither."""
    rng = np.random.default_rng(0)
    t, batch = rng.normal(8, 0.6, 5000), rng.integers(0, 2, 5000)
    bound = -300 * np.exp(0.2 * (t - 8)) - 60 * batch + np.exp(3 + 0.8 * (t - 8)) * rng.normal(size=5000)
    found = BoundTrend.of(bound, t, batch).standardise(bound, t, batch)
    for group in (batch == 0, batch == 1, t < 7.5, t > 8.5):
        assert kstest(percentile(found, found)[group], "uniform").statistic < 0.05
        assert kstest(percentile(bound, bound)[group], "uniform").statistic > 0.1


def test_it_is_straight_beyond_what_was_seen():
    rng = np.random.default_rng(0)
    t = rng.uniform(5, 8, 500)
    trend = BoundTrend.of(-(t**3) + rng.normal(size=500), t, np.zeros(500, int))
    far = np.linspace(9, 12, 7)
    level = -trend.standardise(np.zeros(7), far, np.zeros(7, int)) * np.exp(trend.spread[0] + trend.spread[1] * far)
    np.testing.assert_allclose(np.diff(level, 2), 0, atol=1e-6)


@pytest.mark.parametrize("t", [np.full(20, 7.0), np.repeat([6.0, 7.0], 10)])
def test_few_different_totals_are_enough(t):
    bound = np.random.default_rng(0).normal(size=20) - t
    found = BoundTrend.of(bound, t, np.zeros(20, int)).standardise(bound, t, np.zeros(20, int))
    np.testing.assert_allclose([found[t == level].mean() for level in np.unique(t)], 0, atol=1e-6)


def test_bounds_without_any_spread_are_no_division_by_zero():
    t = np.linspace(5, 8, 30)
    assert np.isfinite(BoundTrend.of(2 * t, t, np.zeros(30, int)).standardise(2 * t, t, np.zeros(30, int))).all()


def test_a_batch_without_reference_cells_is_taken_for_the_average_one():
    rng = np.random.default_rng(0)
    t, batch = rng.normal(7, 0.5, 4000), rng.choice([0, 1], 4000, p=[0.25, 0.75])
    trend = BoundTrend.of(-100 * t + 40 * batch + rng.normal(size=4000), t, batch)
    at = np.full(3, 7.0)
    known, new = trend.standardise(np.full(3, -700.0), at, np.array([0, 1, 2])), -700.0
    assert new == -700
    assert known[2] == pytest.approx(0.25 * known[0] + 0.75 * known[1], rel=0.05)


def test_cells_that_come_in_parts_give_the_same_trend(monkeypatch):
    rng = np.random.default_rng(0)
    t, batch = rng.normal(7, 0.5, 1000), np.sort(rng.integers(0, 4, 1000))  # sorted: parts lack batches
    bound = -90 * t + 40 * batch + rng.normal(size=1000)
    whole = BoundTrend.of(bound, t, batch)
    monkeypatch.setattr("scanpy_scvi.numerics.least_squares.ROWS", 90)
    parts = BoundTrend.of(bound, t, batch)
    np.testing.assert_allclose(parts.level, whole.level, rtol=1e-7)
    np.testing.assert_allclose(parts.spread, whole.spread, rtol=1e-7)
    np.testing.assert_allclose(parts.standardise(bound, t, batch), whole.standardise(bound, t, batch), atol=1e-7)
