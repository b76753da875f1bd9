import numpy as np
import pytest
from scipy import stats

from scanpy_scvi.metrics import two_samples
from scanpy_scvi.metrics.two_samples import forest_auc, lisi, mmd, usual_width


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def slow_mmd(first, second, widths):
    """The estimator, pair by pair."""

    def k(x, y):
        return np.mean([np.exp(-((x - y) ** 2).sum() / (2 * w**2)) for w in widths])

    m, n = len(first), len(second)
    a = sum(k(first[i], first[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    b = sum(k(second[i], second[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return a + b - 2 * sum(k(x, y) for x in first for y in second) / (m * n)


def test_mmd_is_its_double_loop(rng, monkeypatch):
    x, y = rng.normal(size=(23, 3)), rng.normal(0.5, 2, size=(17, 3))
    expected = slow_mmd(x, y, [0.5, 1, 3])
    assert mmd(x, y, [0.5, 1, 3]) == pytest.approx(expected, rel=1e-10)
    assert mmd(y, x, [0.5, 1, 3]) == pytest.approx(expected, rel=1e-10)
    monkeypatch.setattr(two_samples, "CHUNK", 5)
    assert mmd(x, y, [0.5, 1, 3]) == pytest.approx(expected, rel=1e-10)


def test_mmd_is_zero_on_average_under_permutation(rng):
    """U15: an unbiased estimate is negative about as often as not, where the sets are one."""
    pooled = rng.normal(size=(60, 4))
    values = []
    for _ in range(300):
        order = rng.permutation(60)
        values.append(mmd(pooled[order[:30]], pooled[order[30:]], [1.0, 2.0]))
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(300)
    assert min(values) < 0 < max(values)
    assert mmd(pooled[:30], pooled[30:] + 2, [1.0, 2.0]) > max(values)


def test_mmd_of_normals_has_its_closed_form(rng):
    """E k of two independent N(0, 1) and N(a, 1) is a normal density with variance w^2 + 2, up to its constant."""
    w, a = 1.5, 1.0
    scale = w * np.sqrt(2 * np.pi)
    expected = 2 * scale * (stats.norm.pdf(0, scale=np.sqrt(w**2 + 2)) - stats.norm.pdf(a, scale=np.sqrt(w**2 + 2)))
    x, y = rng.normal(size=(4000, 1)), rng.normal(a, size=(4000, 1))
    assert mmd(x, y, [w]) == pytest.approx(expected, abs=0.02)


def test_lisi_lies_between_one_and_the_number_of_sets(rng):
    points, codes = rng.normal(size=(600, 2)), np.repeat([0, 1], 300)
    mixed = lisi(points, codes)
    assert ((mixed >= 1) & (mixed <= 2)).all()
    assert mixed.mean() > 1.85
    assert lisi(points + 100 * codes[:, None], codes) == pytest.approx(1)
    assert 2.5 < lisi(points, np.arange(600) % 3).mean() <= 3
    assert lisi(np.zeros((50, 2)), np.arange(50) % 2).mean() > 1.8  # all in one place


def test_neighbourhoods_have_the_perplexity_that_is_asked_for(rng):
    squared = np.sort(rng.exponential(size=(40, 90)), axis=1)
    weights = two_samples._weights(squared, 30.0)
    np.testing.assert_allclose(weights.sum(1), 1)
    np.testing.assert_allclose(np.exp(stats.entropy(weights, axis=1)), 30, rtol=1e-6)
    assert (np.diff(weights, axis=1) <= 0).all()


def test_a_forest_tells_what_differs(rng):
    x, y = rng.normal(size=(2, 400, 5))
    options = {"n_trees": 50, "random_state": 0}
    assert abs(forest_auc(x, y, **options) - 0.5) < 0.1
    assert forest_auc(x, y + 3, **options) > 0.99
    assert forest_auc(x, 2 * y, **options) > 0.7  # a wider cloud with the same mean
    assert forest_auc(x, y, **options) == forest_auc(x, y, **options)


def test_width_is_that_of_neighbours(rng):
    points = rng.normal(size=(200, 3))
    away = np.sqrt(((points[:, None] - points) ** 2).sum(2))
    assert usual_width(points) == pytest.approx(np.median(np.sort(away, axis=1)[:, 1:25].mean(1)), rel=1e-6)
    assert usual_width(np.zeros((30, 2))) == 1
