"""Partners of latents, against all permutations and closed forms."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from scanpy_scvi.metrics import latent_r2, mcc


def _orthonormal(n, p, seed=0):
    """Columns of mean 0 that are exactly uncorrelated."""
    x = np.random.default_rng(seed).normal(size=(n, p))
    return np.linalg.qr(x - x.mean(0))[0]


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_a_permuted_copy_with_other_signs_and_scales_is_the_truth(method):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200, 6))
    order, signs = rng.permutation(6), np.array([1, -1, -1, 1, -1, 1])
    match = mcc(z, 3 + z[:, order] * signs * [1, 2, 3, 1e6, 1e-6, 1], method=method)
    assert match.mcc == pytest.approx(1)
    np.testing.assert_array_equal(match.assignment, np.argsort(order))
    np.testing.assert_array_equal(match.signs, signs[np.argsort(order)])
    np.testing.assert_allclose(match.correlations, match.signs)


@pytest.mark.parametrize("degrees", [10, 30, 45, 70])
def test_of_a_rotation_it_is_the_larger_of_cosine_and_sine(degrees):
    z, t = _orthonormal(50, 2), np.deg2rad(degrees)
    rotated = z @ np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
    assert mcc(z, rotated).mcc == pytest.approx(max(np.cos(t), np.sin(t)))
    assert latent_r2(z, rotated) == pytest.approx(1)


@pytest.mark.parametrize(("p", "q"), [(5, 5), (4, 6), (6, 4)])
@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_the_assignment_is_the_best_of_all(p, q, method):
    rng = np.random.default_rng(p + 10 * q)
    z = rng.normal(size=(40, p))
    estimated = z @ rng.normal(size=(p, q)) + rng.normal(size=(40, q))
    r = spearmanr(z, estimated).statistic if method == "spearman" else np.corrcoef(z, estimated, rowvar=False)
    r = r[:p, p:]
    short, long = sorted((p, q))
    sums = (abs(r if p <= q else r.T)[range(short), list(order)].sum() for order in permutations(range(long), short))
    match = mcc(z, estimated, method=method)
    assert match.mcc == pytest.approx(max(sums) / p)
    found = match.assignment >= 0
    np.testing.assert_allclose(match.correlations[found], r[found, match.assignment[found]])
    assert len(set(match.assignment[found])) == found.sum() == short


def test_true_latents_without_a_partner_count_as_nothing_and_surplus_ones_not_at_all():
    z = np.random.default_rng(1).normal(size=(100, 4))
    match = mcc(z, -z[:, [2, 0]])
    assert match.mcc == pytest.approx(0.5)
    assert match.assignment.tolist() == [1, -1, 0, -1]
    assert match.signs.tolist() == [-1, 0, -1, 0]
    assert mcc(z[:, :2], z[:, ::-1]).mcc == pytest.approx(1)


@pytest.mark.parametrize("method", ["pearson", "spearman"])
@pytest.mark.parametrize("constant", [0.0, 0.1, 1e8])
def test_constant_columns_count_as_nothing(method, constant):
    z = np.random.default_rng(2).normal(size=(333, 3)).astype(np.float32)
    dead = z.copy()
    dead[:, 1] = constant
    assert mcc(z, dead, method=method).mcc == pytest.approx(2 / 3)
    assert mcc(dead, z, method=method).mcc == pytest.approx(2 / 3)
    assert mcc(np.zeros((5, 2)), np.ones((5, 2)), method=method).mcc == 0
    assert latent_r2(dead, z) == pytest.approx(2 / 3)


def test_signs_do_not_decide_who_is_whose_partner():
    """The first latent is found upside down; the largest signed correlations would pair it with the second."""
    z = _orthonormal(60, 2)
    estimated = np.stack([-z[:, 0], 0.9 * z[:, 1] + 0.1 * z[:, 0]], axis=1)
    match = mcc(z, estimated)
    assert match.assignment.tolist() == [0, 1]
    assert match.signs.tolist() == [-1, 1]
    r = np.corrcoef(z, estimated, rowvar=False)[:2, 2:]
    assert r[0, 1] + r[1, 0] > r[0, 0] + r[1, 1]


def test_ranks_do_not_see_a_monotone_map():
    z = np.random.default_rng(3).normal(size=(100, 2))
    assert mcc(z, np.exp(3 * z), method="spearman").mcc == pytest.approx(1)
    assert mcc(z, np.exp(3 * z)).mcc < 0.8


def test_latent_r2_is_that_of_linear_regression():
    rng = np.random.default_rng(4)
    z, estimated = rng.normal(1, 2, size=(80, 3)), rng.normal(size=(80, 4))
    estimated[:, 0] += z[:, 1]
    fitted = LinearRegression().fit(estimated, z).predict(estimated)
    assert latent_r2(z, estimated) == pytest.approx(r2_score(z, fitted, multioutput="uniform_average"))


@pytest.mark.parametrize(
    ("true", "estimated", "options", "message"),
    [
        (np.zeros((3, 2)), np.zeros((4, 2)), {}, "`true` has 3 cells and `estimated` has 4"),
        (np.zeros((1, 2)), np.zeros((1, 2)), {}, "at least 2"),
        (np.zeros(3), np.zeros((3, 2)), {}, "`true` must be a matrix"),
        (np.zeros((3, 2)), np.full((3, 2), np.nan), {}, "6 missing or infinite"),
        (np.zeros((3, 2)), np.zeros((3, 2)), {"method": "kendall"}, "'pearson', 'spearman'"),
    ],
)
def test_what_cannot_be_compared_is_refused(true, estimated, options, message):
    with pytest.raises(ValueError, match=message):
        mcc(true, estimated, **options)
