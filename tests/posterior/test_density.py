import numpy as np
import pytest

from scanpy_scvi.posterior import density
from scanpy_scvi.posterior.density import Density

MEANS = np.array([[-4.0, 0.0, 1.0], [3.0, 3.0, -2.0]])
FACTOR = np.array([[1.0, 0.0, 0.0], [0.9, 0.4, 0.0], [0.0, 0.3, 0.6]])


@pytest.fixture(scope="module")
def clouds():
    """1,200 points of two correlated normals, a third of them in the first."""
    rng = np.random.default_rng(0)
    code = (np.arange(1200) % 3 > 0).astype(int)
    return MEANS[code] + rng.normal(size=(1200, 3)) @ FACTOR.T, code


def test_draws_have_the_moments_of_the_points(clouds):
    points, code = clouds
    rng = np.random.default_rng(1)
    fitted = Density(points, rng)
    drawn, donors = fitted.draw(20_000, rng)
    which = np.argmin(((drawn[:, None] - MEANS) ** 2).sum(2), axis=1)
    assert abs(which.mean() - 2 / 3) < 0.02
    for k in range(2):
        np.testing.assert_allclose(drawn[which == k].mean(0), points[code == k].mean(0), atol=0.05)
        np.testing.assert_allclose(np.cov(drawn[which == k].T), FACTOR @ FACTOR.T, atol=0.15)
    assert (code[donors] == which).mean() > 0.999
    assert set(np.bincount(donors, minlength=1200).astype(bool)) == {True}


def test_the_number_of_components_is_that_of_the_clouds(clouds):
    assert len(Density(clouds[0], np.random.default_rng(2)).weights) == 2
    one = np.random.default_rng(0).normal(size=(800, 4))
    assert len(Density(one, np.random.default_rng(2)).weights) == 1


def test_seed_decides(clouds):
    draws = []
    for seed in (3, 3, 4):
        rng = np.random.default_rng(seed)
        draws.append(Density(clouds[0], rng).draw(50, rng))
    np.testing.assert_array_equal(draws[0].points, draws[1].points)
    np.testing.assert_array_equal(draws[0].donors, draws[1].donors)
    assert (draws[0].points != draws[2].points).any()


@pytest.mark.parametrize("n", [1, 2, 3, 9, 12])
def test_few_points(n):
    rng = np.random.default_rng(0)
    points = rng.normal(5, 1, (n, 7))
    drawn, donors = Density(points, rng).draw(500, rng)
    assert np.isfinite(drawn).all()
    assert (donors < n).all()
    np.testing.assert_allclose(drawn.mean(0), points.mean(0), atol=0.3)


def test_many_points_are_fitted_in_part_but_all_may_be_donors(clouds, monkeypatch):
    monkeypatch.setattr(density, "MOST_POINTS", 200)
    monkeypatch.setattr(density, "CHUNK", 100)
    rng = np.random.default_rng(0)
    drawn, donors = Density(clouds[0], rng).draw(20_000, rng)
    assert len(np.unique(donors)) > 1150
    np.testing.assert_allclose(drawn.mean(0), clouds[0].mean(0), atol=0.5)
