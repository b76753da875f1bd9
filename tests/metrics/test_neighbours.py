import numpy as np
import pytest
from scipy.spatial.distance import cdist

from scanpy_scvi.metrics import neighbours
from scanpy_scvi.metrics.neighbours import nearest


def cloud(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 5)).astype(np.float32)


def test_neighbours_are_the_nearest_and_not_the_cell_itself():
    x, y = cloud(60), cloud(20, seed=1)
    among = cdist(x, x)
    np.fill_diagonal(among, np.inf)
    found = nearest(x, n_neighbors=4)
    np.testing.assert_array_equal(found.indices, among.argsort(1)[:, :4])
    np.testing.assert_allclose(found.distances, np.sort(among)[:, :4], rtol=1e-5)
    new = nearest(x, y, n_neighbors=4)
    np.testing.assert_array_equal(new.indices, cdist(y, x).argsort(1)[:, :4])


def test_a_twin_is_a_neighbour():
    x = np.repeat(cloud(10), 2, axis=0)
    found = nearest(x, n_neighbors=1)
    np.testing.assert_array_equal(found.indices[:, 0], np.arange(20) ^ 1)
    assert (found.distances == 0).all()


def test_no_more_neighbours_than_cells():
    assert nearest(cloud(3), n_neighbors=15).indices.shape == (3, 2)
    assert nearest(cloud(3), cloud(5), n_neighbors=15).indices.shape == (5, 3)


@pytest.mark.slow
def test_the_approximate_search_finds_the_same_and_is_repeatable(monkeypatch):
    x, y = cloud(1500), cloud(50, seed=1)
    exact = nearest(x, n_neighbors=10), nearest(x, y, n_neighbors=10)
    monkeypatch.setattr(neighbours, "MOST_EXACT", 1000)
    for query, truth in zip((None, y), exact, strict=True):
        found, again = (nearest(x, query, n_neighbors=10, random_state=1) for _ in range(2))
        np.testing.assert_array_equal(found.indices, again.indices)
        np.testing.assert_array_equal(found.distances, again.distances)
        shared = [len(np.intersect1d(a, b)) for a, b in zip(found.indices, truth.indices, strict=True)]
        assert np.mean(shared) > 9.5
    assert (nearest(x, n_neighbors=10).indices != np.arange(len(x))[:, None]).all()
