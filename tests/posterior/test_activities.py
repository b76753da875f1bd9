import numpy as np
import pytest
from scipy.stats import norm

from scanpy_scvi.posterior.activities import compare_activities
from scanpy_scvi.posterior.latent import LatentMoments


def group(rng, n, shift, spread=1.0, var=0.2):
    mean = shift + spread * rng.normal(size=(n, len(shift)))
    return LatentMoments(mean.astype(np.float32), np.full(mean.shape, var, np.float32))


def compare(a, b, delta=0.25, n_pairs=20_000, seed=0):
    return compare_activities(a, b, delta=delta, n_pairs=n_pairs, rng=np.random.default_rng(seed))


def test_normal_groups_give_what_normal_theory_says():
    rng = np.random.default_rng(1)
    shift = np.array([0.0, 0.5, -2.0])
    found = compare(group(rng, 5000, shift), group(rng, 4000, np.zeros(3)))
    sd = np.sqrt(1.2)
    np.testing.assert_allclose(found.sd, sd, rtol=0.03)
    np.testing.assert_allclose(found.effect, shift / sd, atol=0.06)
    np.testing.assert_allclose(found.p_up, norm.cdf((shift / sd - 0.25) / np.sqrt(2)), atol=0.02)
    np.testing.assert_allclose(found.p_down, norm.cdf((-shift / sd - 0.25) / np.sqrt(2)), atol=0.02)
    np.testing.assert_array_equal(found.differs, np.maximum(found.p_up, found.p_down))


def test_the_closed_form_is_what_draws_give():
    rng = np.random.default_rng(2)
    a, b = group(rng, 30, np.array([0.4]), var=0.5), group(rng, 40, np.array([0.0]), var=0.1)
    found = compare(a, b, delta=0.5)
    draws = [
        g.mean[r] + np.sqrt(g.var[r]) * rng.normal(size=(400_000, 1))
        for g, r in ((g, rng.integers(len(g.mean), size=400_000)) for g in (a, b))
    ]
    gap = draws[0] - draws[1]
    assert found.p_up[0] == pytest.approx((gap >= 0.5 * found.sd).mean(), abs=0.01)
    assert found.p_down[0] == pytest.approx((gap <= -0.5 * found.sd).mean(), abs=0.01)


def test_groups_exchanged_exchange_up_and_down():
    rng = np.random.default_rng(3)
    a, b = group(rng, 50, np.array([1.0, -1.0])), group(rng, 60, np.zeros(2))
    one, other = compare(a, b), compare(b, a)
    np.testing.assert_allclose(one.p_up, other.p_down, atol=0.02)
    np.testing.assert_allclose(one.effect, -other.effect)


def test_the_scale_of_a_dimension_does_not_matter():
    rng = np.random.default_rng(4)
    a, b = group(rng, 50, np.array([1.0])), group(rng, 60, np.zeros(1))
    larger = [LatentMoments(100 * g.mean, 1e4 * g.var) for g in (a, b)]
    np.testing.assert_allclose(compare(*larger).p_up, compare(a, b).p_up, rtol=1e-4)
    np.testing.assert_allclose(compare(*larger).effect, compare(a, b).effect, rtol=1e-4)


def test_one_cell_each_is_enough():
    one = LatentMoments(np.ones((1, 2), np.float32), np.full((1, 2), 0.5, np.float32))
    found = compare(one, LatentMoments(np.zeros((1, 2), np.float32), one.var), delta=0.0, n_pairs=10)
    np.testing.assert_allclose(found.p_up, norm.cdf(1.0))
