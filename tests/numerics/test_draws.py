import numpy as np
import pytest
from scipy import stats

from scanpy_scvi.numerics.draws import multiply_by_mixture, row_moments


def test_moments_of_chosen_columns():
    rng = np.random.default_rng(0)
    x = rng.gamma(0.3, 1e-4, (50, 300)).astype(np.float32)
    columns = np.flatnonzero(rng.random(300) < 0.5)
    mean, var = row_moments(x, columns)
    chosen = x[:, columns].astype(float)
    np.testing.assert_allclose(mean, chosen.mean(1), rtol=1e-12)
    np.testing.assert_allclose(var, chosen.var(1), rtol=1e-12)


@pytest.fixture
def mixture():
    weights = np.array([[0.7, 0.0, 0.3], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]])
    means = np.array([[0.0, 9.0, 1.0], [0.0, -2.0, 0.0], [0.0, 1.0, -1.0]])
    sds = np.array([[0.0, 1.0, 0.5], [1.0, 0.1, 1.0], [0.1, 0.2, 0.3]])
    return weights, means, sds


def test_factors_follow_the_mixture(mixture):
    x = np.full((3, 20_000), 2.0, np.float32)
    multiply_by_mixture(x, np.array([0, 2]), mixture, np.random.default_rng(0))
    assert (x[1] == 2).all()
    for row in (0, 2):
        weights, means, sds = (m[row] for m in mixture)
        b = np.log(x[row] / 2)
        if row == 0:
            assert (np.abs(b) < 1e-6).mean() == pytest.approx(0.7, abs=0.02)
        grid = np.linspace(-3, 3, 40) + 1e-3
        law = (weights * stats.norm(means, np.maximum(sds, 1e-9)).cdf(grid[:, None])).sum(1)
        np.testing.assert_allclose((b <= grid[:, None]).mean(1), law, atol=0.02)


def test_draws_are_independent_along_a_row_and_between_rows(mixture):
    x = np.ones((40, 5000), np.float32)
    many = tuple(np.tile(m[[2]], (40, 1)) for m in mixture)
    multiply_by_mixture(x, np.arange(40), many, np.random.default_rng(1))
    b = np.log(x)
    assert abs(np.corrcoef(b[0, 1:], b[0, :-1])[0, 1]) < 0.05
    between = np.corrcoef(b)[np.triu_indices(40, 1)]
    assert np.abs(between).mean() < 0.02


def test_nothing_to_do(mixture):
    x = np.ones((3, 0), np.float32)
    multiply_by_mixture(x, np.array([0]), mixture, np.random.default_rng(0))
    multiply_by_mixture(np.ones((3, 4), np.float32), np.array([], int), mixture, np.random.default_rng(0))
