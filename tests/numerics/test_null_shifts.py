import numpy as np
import pytest
from scipy import stats

from scanpy_scvi.numerics.null_shifts import N_SPLITS, NullShifts, errors_needed, q_values, split_control

RNG = np.random.default_rng(0)
Z = RNG.normal(scale=[1.0, 3.0], size=(400, 2))
VARIANCE = Z.var(0, ddof=1)


def split(z=Z, sizes=(30, 90), groups=None):
    return split_control(z, VARIANCE, np.asarray(sizes), rng=np.random.default_rng(1), groups=groups)


def test_random_parts_have_the_sizes_of_perturbations_and_standard_normal_scores():
    null = split()
    assert null.shift.shape == (N_SPLITS, 2)
    assert set(null.n_cells) == {30, 90}
    signed = null.shift / null.standard_error
    assert stats.kstest(signed.ravel(), "norm").pvalue > 0.01
    np.testing.assert_array_equal(null.scores, np.abs(signed))


def test_a_part_is_compared_with_the_rest():
    groups = np.repeat([0, 1, -1], [100, 60, 240])
    null = split(groups=groups)
    np.testing.assert_array_equal(null.n_cells, [100, 60])
    expected = [Z[groups == g].mean(0) - Z[groups != g].mean(0) for g in (0, 1)]
    np.testing.assert_allclose(null.shift, expected, rtol=1e-4)
    np.testing.assert_allclose(null.standard_error[0], np.sqrt(VARIANCE * (1 / 100 + 1 / 300)), rtol=1e-5)


def test_parts_are_at_most_half_of_the_control():
    assert split(sizes=(10**6,)).n_cells.max() == 200


@pytest.mark.parametrize("n", [0, 1, 19])
def test_a_small_control_is_not_split(n):
    assert split(Z[:n]) is None


def test_one_group_of_all_tells_nothing():
    assert split(groups=np.zeros(400, int)) is None


def test_errors_needed_are_those_that_no_part_exceeds_but_one_in_twenty():
    scores = np.abs(np.random.default_rng(3).normal(scale=2, size=(2000, 5)))
    null = NullShifts(scores, np.ones_like(scores), np.ones(2000))
    needed = errors_needed(null, 5, 0.05)
    assert (scores.max(1) > needed).mean() == pytest.approx(0.05, abs=0.002)
    narrow = null._replace(shift=scores / 4)
    assert errors_needed(narrow, 5, 0.05) == errors_needed(None, 5, 0.05) == pytest.approx(stats.norm.isf(0.005))


def test_q_values_are_those_of_benjamini_and_hochberg():
    scores = np.array([[0.5, 4.0], [2.0, 3.0]])
    p = np.sort(2 * stats.norm.sf(scores.ravel()))
    adjusted = np.minimum.accumulate((p * 4 / np.arange(1, 5))[::-1])[::-1]
    np.testing.assert_allclose(np.sort(q_values(scores, None).ravel()), adjusted)


def test_a_wide_null_widens_the_tail():
    wide = NullShifts(np.full((50, 2), 2.0), np.ones((50, 2)), np.ones(50))
    scores = np.array([[1.0, 5.0], [2.0, 7.0]])
    np.testing.assert_allclose(q_values(scores, wide), q_values(scores / 2, None))
    narrow = wide._replace(shift=wide.shift / 10)
    np.testing.assert_allclose(q_values(scores, narrow), q_values(scores, None))


def test_targets_without_effects_are_false_as_often_as_said():
    """Whole perturbations drawn from the control: at most one in twenty has any gate open."""
    rng = np.random.default_rng(4)
    opened = []
    for _ in range(300):
        z = rng.normal(size=(300, 8))
        null = split_control(z, z.var(0, ddof=1), np.array([50]), rng=rng, groups=None)
        other = rng.normal(size=(50, 8)).mean(0) - z.mean(0)
        score = np.abs(other) / np.sqrt(z.var(0, ddof=1) * (1 / 50 + 1 / 300))
        opened.append(score.max() > errors_needed(null, 8, 0.05))
    assert np.mean(opened) < 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 300)
