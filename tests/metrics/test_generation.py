import numpy as np
import pytest
from scipy import sparse

from scanpy_scvi.metrics import generation
from scanpy_scvi.metrics.cell_sets import Profile
from scanpy_scvi.metrics.generation import _correlation, _marker_slope, _voted

QUICK = {"n_trees": 40}
N_GENES = 40
NAMES = np.array(["a", "b", "few"])


def counts(seed, n=300, spread=1.0, effect=2.0):
    """Two types of cells of different sizes; type b has more of the first ten genes, by e^effect."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(["a", "b"], n)
    log_mean = np.linspace(-1, 2, N_GENES) + effect * ((labels == "b")[:, None] & (np.arange(N_GENES) < 10))
    size = rng.lognormal(0, 0.4 * spread, (n, 1))
    x = rng.poisson(size * np.exp(log_mean))
    x[x.sum(1) == 0, 0] = 1
    return x, labels


@pytest.fixture(scope="module")
def sets():
    return [counts(seed) for seed in range(3)]


def test_one_distribution(sets):
    (real, a), (made, b), (other, c) = sets
    found = generation(real, made, control=other, real_labels=a, generated_labels=b, control_labels=c, **QUICK)
    assert found.n_cells == 300
    assert found.real_zeros == pytest.approx((real == 0).mean())
    for scores, x in ((found.generated, made), (found.control, other)):
        assert abs(scores.forest_log - 0.5) < 0.15
        assert abs(scores.forest_raw - 0.5) < 0.15
        assert abs(scores.mmd) < 4e-3
        assert scores.lisi > 1.8  # 90 neighbours in 800 cells: chance alone keeps it below 2
        assert scores.correlation > 0.5
        assert scores.zeros == pytest.approx((x == 0).mean())
        assert 0.9 < scores.marker_slope < 1.1
        assert scores.label_kept > 0.9


def test_another_distribution(sets):
    real, labels = sets[0]
    shuffled = np.random.default_rng(0).permuted(real, axis=0)  # each gene keeps its counts
    found = generation(real, shuffled, control=sets[1][0], **QUICK).generated
    assert found.forest_log > 0.8
    assert found.forest_raw > 0.8
    assert found.mmd > 2e-3
    assert found.lisi < 1.8
    assert found.correlation < 0.3
    assert np.isnan([found.marker_slope, found.label_kept]).all()
    weak, weak_labels = counts(5, effect=1.0)
    half = generation(real, weak, real_labels=labels, generated_labels=weak_labels, **QUICK)
    assert half.generated.marker_slope < 0.7 < 0.9 < half.control.marker_slope
    swapped = np.where(labels == "a", "b", "a")
    assert generation(real, real, real_labels=labels, generated_labels=swapped, **QUICK).generated.label_kept < 0.05


def test_without_a_control_the_real_cells_are_halved(sets):
    (real, a), (made, b), _ = sets
    found = generation(real, made, real_labels=a, generated_labels=b, **QUICK)
    assert found.n_cells == 150
    assert abs(found.control.forest_log - 0.5) < 0.2
    assert 0.85 < found.control.marker_slope < 1.15
    assert generation(real, made[:30], **QUICK).n_cells == 30
    assert generation(real, made, n_cells=50, **QUICK).n_cells == 50


def test_the_control_does_not_depend_on_what_was_generated(sets):
    (real, _), (made, _), (other, _) = sets
    found = [generation(real, x, control=other, **QUICK).control for x in (made, made[::-1] * 3)]
    np.testing.assert_equal(found[0], found[1])


def test_seed_decides_and_formats_do_not(sets):
    (real, _), (made, _), _ = sets
    first = generation(real, made, random_state=3, **QUICK)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    for convert in (sparse.csr_matrix, sparse.csc_array, np.float32):
        np.testing.assert_equal(generation(convert(real), convert(made), random_state=3, **QUICK), first)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert generation(real, made, random_state=4, **QUICK) != first


def profile(log, labels=None):
    return Profile(raw=log, log=log, zeros=0.0, labels=labels)


def test_correlations_are_those_of_numpy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 50, 8)) @ rng.normal(size=(8, 8))
    above = np.triu_indices(8, 1)
    expected = np.corrcoef(np.corrcoef(x.T)[above], np.corrcoef(y.T)[above])[0, 1]
    assert _correlation(x, y) == pytest.approx(expected)
    wide = np.c_[x * np.linspace(2, 1, 8), 1e-3 * rng.normal(size=(50, 95))]
    assert _correlation(wide, wide) == pytest.approx(1)
    y[:, 0] = 4.0  # pairs with a constant gene count as 0
    c = np.zeros((8, 8))
    c[1:, 1:] = np.corrcoef(y[:, 1:].T)
    assert _correlation(x, y) == pytest.approx(np.corrcoef(np.corrcoef(x.T)[above], c[above])[0, 1])


def test_slope_of_fold_changes_that_are_known():
    rng = np.random.default_rng(1)
    labels = np.repeat(["a", "b", "few"], [40, 40, 2])
    shift = np.outer(labels == "a", rng.uniform(0, 2, 30)) + np.outer(labels == "b", rng.uniform(0, 2, 30))
    real, other = profile(shift, labels), profile(0.4 * shift + 7, labels)
    assert _marker_slope(real, other, NAMES) == pytest.approx(0.4)
    assert _marker_slope(real, real, NAMES) == pytest.approx(1)
    assert np.isnan(_marker_slope(profile(shift[:40], labels[:40]), real, np.array(["a"])))  # nothing but one label


def test_votes_are_of_the_nearest():
    points = np.r_[np.zeros((20, 2)), np.full((20, 2), 9.0)]
    labels = np.repeat(["x", "y"], 20)
    assert _voted(points, labels, np.array([[1.0, 0.0], [8.0, 9.0]])).tolist() == ["x", "y"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"generated": np.ones((40, 3))}, "same genes, but they have 40, 3 of them"),
        ({"generated": np.ones(40)}, "`generated` must be a matrix"),
        ({"generated": np.full((40, 40), "1")}, "`generated` must be a matrix"),
        ({"generated": -np.ones((40, 40))}, "negative or non-finite"),
        ({"control": np.full((40, 40), np.nan)}, "`control` must hold counts"),
        ({"generated": np.zeros((40, 40))}, "40 cells of `generated` have no counts"),
        ({"generated": np.ones((19, 40))}, "`generated` has 19 cells, but at least 20"),
        ({"real": np.ones((39, 40))}, "`real` has 39 cells, but at least 40"),
        ({"real_labels": ["a"] * 40}, "some of the sets"),
        ({"real_labels": ["a"] * 39}, "one label for each of the 40 cells"),
        ({"control_labels": ["a"] * 40}, "without `control`"),
        ({"n_trees": 0}, "`n_trees` is 0"),
        ({"n_cells": 3}, "`n_cells` is 3"),
        ({"target_sum": 0}, "`target_sum` is 0"),
        ({"target_sum": np.inf}, "`target_sum` is inf"),
    ],
)
def test_refuses_with_a_reason(change, words):
    with pytest.raises(ValueError, match=words):
        generation(**{"real": np.ones((40, 40)), "generated": np.ones((40, 40))} | change)
