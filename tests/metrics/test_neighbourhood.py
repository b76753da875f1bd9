import numpy as np
import pytest
from scipy.spatial.distance import cdist

from scanpy_scvi.metrics import neighbourhood
from scanpy_scvi.metrics.neighbourhood import Kin, Space, Usual, within_metric
from scanpy_scvi.metrics.neighbours import Neighbours


def cloud(n, n_dims=4, seed=0):
    return np.random.default_rng(seed).normal(size=(n, n_dims))


def test_weights_are_a_gaussian_with_a_third_of_the_farthest_distance():
    distances = np.array([[0.5, 1.0, 3.0], [2.0, 2.0, 2.0]])
    kin = Kin.of(Neighbours(np.zeros((2, 3), int), distances))
    expected = np.exp(-(distances**2) / (2 * (distances[:, -1:] / 3) ** 2))
    np.testing.assert_allclose(kin.weights, expected / expected.sum(1, keepdims=True))


def test_far_and_coinciding_neighbours_have_weights_too():
    """exp(-d^2) itself would vanish, and its bandwidth would be zero."""
    distances = np.array([[1e6, 1e6 + 1], [0.0, 0.0]])
    kin = Kin.of(Neighbours(np.zeros((2, 2), int), distances))
    np.testing.assert_allclose(kin.weights, 0.5, atol=1e-4)


def test_labels_means_and_variances_are_weighted():
    kin = Kin(np.array([[0, 1, 2], [2, 2, 1]]), np.array([[0.5, 0.3, 0.2], [0.6, 0.2, 0.2]]))
    shares = np.array([[0.3, 0.7], [0.2, 0.8]]) / [1, 2**0.25]  # one cell has the first label, two have the second
    expected = shares / shares.sum(1, keepdims=True)
    np.testing.assert_allclose(kin.probabilities(np.array([1, 0, 1]), 2), expected)
    values = np.array([1.0, 2.0, 4.0])
    np.testing.assert_allclose(kin.mean(values), [1.9, 3.6])
    np.testing.assert_allclose(kin.mean(np.c_[values, -values]), [[1.9, -1.9], [3.6, -3.6]])
    first = 0.5 * 0.9**2 + 0.3 * 0.1**2 + 0.2 * 2.1**2
    np.testing.assert_allclose(kin.variance(values)[0], first / (1 - 0.25 - 0.09 - 0.04))


def test_the_variance_is_unbiased_with_equal_weights():
    values = cloud(5)[:, 0]
    kin = Kin(np.arange(5)[None], np.full((1, 5), 0.2))
    np.testing.assert_allclose(kin.variance(values), values.var(ddof=1))


def test_directions_in_which_cells_of_one_kind_differ_count_less():
    """Noise of very different size in each direction, rotated; that kinds of cells are far apart must not count."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(900, 3)) * [1, 0.2, 3]
    centres = np.repeat(np.eye(3) * 200, 300, axis=0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    metric = within_metric((noise + centres) @ turn, rng)
    spread = np.linalg.eigvalsh(np.cov((noise @ turn @ metric).T))
    before = np.linalg.eigvalsh(np.cov(noise.T))
    assert spread[-1] / spread[0] < before[-1] / before[0] / 3  # the ridge and the ball of neighbours keep it from 1
    apart = np.linalg.norm((centres @ turn @ metric)[[0, 300]], axis=1)
    assert apart.min() > 20 * np.sqrt(spread[-1])


def test_distances_are_those_of_mahalanobis():
    points = cloud(200) * [1, 2, 3, 4]
    space = Space(points, n_neighbors=5, random_state=0)
    away = points[:, None] - points[np.argsort(cdist(points, points), axis=1)[:, 1:16]]
    within = np.einsum("nki,nkj->ij", away, away) / (200 * 15)
    inverse = np.linalg.inv(within + neighbourhood.RIDGE * np.trace(within) / 4 * np.eye(4))
    new = cloud(10, seed=1)
    expected = np.sort(cdist(new, points, "mahalanobis", VI=inverse), axis=1)[:, :5]
    np.testing.assert_allclose(space.index.of(space.place(new)).distances, expected, rtol=1e-6)


def test_identical_cells_have_a_space():
    points = np.ones((5, 2))
    space = Space(points, n_neighbors=3, random_state=0)
    assert space.usual().scale > 0
    assert space.index.of(space.place(points)).distances.max() == 0


def test_the_threshold_leaves_its_rate_of_the_references_own_cells():
    space = Space(cloud(1000), n_neighbors=10, random_state=0)
    usual = space.usual()
    assert np.median(usual.distances / usual.scale) == 1
    for rate in (0.1, 0.01):
        assert (usual.distances / usual.scale > usual.threshold(rate)).mean() == pytest.approx(rate, abs=2e-3)
    fresh = space.index.of(space.place(cloud(2000, seed=1))).distances.mean(1) / usual.scale
    assert (fresh > usual.threshold(0.05)).mean() == pytest.approx(0.05, abs=0.02)
    assert Usual(np.arange(11.0)).threshold(0.5) == 1


def test_a_large_reference_is_measured_on_some_of_its_cells(monkeypatch):
    points = cloud(600) * [1, 5, 1, 1]
    whole = within_metric(points, np.random.default_rng(0))
    monkeypatch.setattr(neighbourhood, "MOST_EXACT", 300)
    some, again = (within_metric(points, np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_array_equal(some, again)
    new, one = cloud(50, seed=2), np.zeros((1, 4))
    a, b = (cdist(one @ m, new @ m)[0] for m in (whole, some))
    assert np.corrcoef(a, b)[0, 1] > 0.99
