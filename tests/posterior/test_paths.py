import numpy as np
from scipy.sparse.csgraph import dijkstra
from scipy.spatial.distance import cdist

from scanpy_scvi.metrics.neighbours import nearest
from scanpy_scvi.posterior.paths import path_through_cells, straight_path


def ring(n=40):
    angle = np.linspace(0, 1.5 * np.pi, n)
    return np.c_[np.cos(angle), np.sin(angle)].astype(np.float32)


def test_a_straight_path_is_a_line():
    a, b = np.array([0, 1, 2], np.float32), np.array([4, -1, 2], np.float32)
    path = straight_path(a, b, 9)
    np.testing.assert_allclose(path.z, a + path.position[:, None] * (b - a), rtol=1e-6)
    np.testing.assert_array_equal(path.z[[0, -1]], [a, b])
    assert len(path.through) == 0
    same = straight_path(a, a, 4)
    np.testing.assert_array_equal(same.z, [a] * 4)


def test_a_path_through_cells_follows_the_data_in_even_steps():
    """Three quarters of a circle: the straight path cuts across, the other stays on it."""
    x = ring()
    path = path_through_cells(x, nearest(x, n_neighbors=3), (x[0], x[-1]), (0, 39), 30)
    np.testing.assert_array_equal(path.through, np.arange(40))
    np.testing.assert_allclose(np.linalg.norm(path.z, axis=1), 1, atol=0.01)
    steps = np.linalg.norm(np.diff(path.z, axis=0), axis=1)
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.02)
    np.testing.assert_array_equal(path.z[[0, -1]], x[[0, -1]])


def test_it_is_the_shortest_by_squared_distances():
    x = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    path = path_through_cells(x, nearest(x, n_neighbors=29), (x[0], x[1]), (0, 1), 5)
    length = (np.linalg.norm(np.diff(x[path.through], axis=0), axis=1) ** 2).sum()
    np.testing.assert_allclose(length, dijkstra(cdist(x, x) ** 2)[0, 1], rtol=1e-5)


def test_parts_are_connected_by_the_shortest_bridge():
    x = np.concatenate([ring(), ring() + 10]).astype(np.float32)
    path = path_through_cells(x, nearest(x, n_neighbors=3), (x[0], x[79]), (0, 79), 10)
    gap = np.flatnonzero((path.through[:-1] < 40) & (path.through[1:] >= 40))
    assert len(gap) == 1
    bridge = np.linalg.norm(np.diff(x[path.through[gap[0] : gap[0] + 2]], axis=0))
    np.testing.assert_allclose(bridge, cdist(x[:40], x[40:]).min(), rtol=1e-5)


def test_twins_are_no_gap():
    x = np.repeat(ring(10), 2, axis=0)
    path = path_through_cells(x, nearest(x, n_neighbors=5), (x[0], x[-1]), (0, 19), 12)
    assert np.isfinite(path.z).all()
    np.testing.assert_array_equal(path.z[[0, -1]], x[[0, -1]])


def test_twins_in_parts_without_neighbours_in_common_are_connected():
    """More cells at one place than they have neighbours: a bridge of no length is one nevertheless."""
    x = np.repeat([[0.0, 0.0], [1.0, 0.0]], 3, axis=0).astype(np.float32)
    cliques = np.array([[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4]])
    twins = np.concatenate([x[:3], x[:3]])
    path = path_through_cells(twins, (cliques, np.zeros((6, 2))), (twins[0], twins[5]), (0, 5), 4)
    assert path.through[[0, -1]].tolist() == [0, 5]
    assert np.isfinite(path.z).all()
