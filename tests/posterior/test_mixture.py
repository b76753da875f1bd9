import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

from scanpy_scvi.posterior import mixture
from scanpy_scvi.posterior.abundance import (
    AVERAGED,
    BANDWIDTHS,
    choose_bandwidth,
    log_fold_change,
    sample_log_densities,
)
from scanpy_scvi.posterior.mixture import log_density


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    return rng.normal(size=(30, 4)), rng.uniform(0.01, 1, (30, 4))


def slow(z, mean, var):
    """log of the mean of normal densities, from SciPy; the scale of a normal is a standard deviation."""
    return logsumexp(norm.logpdf(z[:, None], mean, np.sqrt(var)).sum(2), axis=1) - np.log(len(mean))


def test_density_is_that_of_the_mixture(cells, monkeypatch):
    z = np.random.default_rng(1).normal(size=(25, 4))
    expected = slow(z, *cells)
    np.testing.assert_allclose(log_density(z, *cells), expected, rtol=1e-10)
    np.testing.assert_allclose(log_density(z, *cells, bandwidth=0.5), slow(z, cells[0], cells[1] + 0.25), rtol=1e-10)
    monkeypatch.setattr(mixture, "ROWS", 7)
    monkeypatch.setattr(mixture, "COMPONENTS", 4)
    np.testing.assert_allclose(log_density(z, *cells), expected, rtol=1e-10)


@pytest.mark.parametrize("chunk", [4, 4096])
def test_a_cell_is_left_out_of_its_own_mixture(cells, monkeypatch, chunk):
    monkeypatch.setattr(mixture, "COMPONENTS", chunk)
    mean, var = cells
    own = np.where(np.arange(30) % 3 == 0, -1, np.arange(30))
    found = log_density(mean, mean, var, own=own)
    for i in range(30):
        keep = np.arange(30) != own[i]
        np.testing.assert_allclose(found[i], slow(mean[i : i + 1], mean[keep], var[keep])[0], rtol=1e-10)


def test_far_away_is_no_overflow(cells):
    found = log_density(np.full((1, 4), 1e4), *cells)
    assert np.isfinite(found).all()
    assert found[0] < -1e6
    assert log_density(np.zeros((1, 2)), np.zeros((1, 2)), np.ones((1, 2)), own=np.zeros(1, int))[0] == -np.inf


def test_ratio_of_densities_is_the_ratio_of_proportions():
    """Two kinds of cells far apart, of the same shape in every sample: densities differ by the shares alone."""
    shares = np.array([0.8, 0.6, 0.3, 0.1])
    within = np.random.default_rng(0).normal(0, 0.2, (200, 3))
    mean, codes, kind = [], [], []
    for sample, share in enumerate(shares):
        a = int(200 * share)
        mean += [within[:a], 50 + within[: 200 - a]]
        codes += [sample] * 200
        kind += ["a"] * a + ["b"] * (200 - a)
    mean, codes, kind = np.concatenate(mean), np.array(codes), np.array(kind)
    found = sample_log_densities(mean, np.full_like(mean, 1.0), codes, max_cells=5000, bandwidth=0.0, random_state=0)
    change = log_fold_change(found, np.array([0, 1]), np.array([2, 3]))
    np.testing.assert_allclose(change.lfc[kind == "a"], np.log2(0.7 / 0.2), atol=0.1)
    np.testing.assert_allclose(change.lfc[kind == "b"], np.log2(0.3 / 0.8), atol=0.1)
    a = kind == "a"  # without the sample of 0.1: 0.7 to 0.3; without that of 0.6: 0.8 to 0.2, but 0.3 left out: to 0.1
    np.testing.assert_allclose(change.low[a], np.log2(0.7 / 0.3), atol=0.1)
    np.testing.assert_allclose(change.high[a], np.log2(0.7 / 0.1), atol=0.15)


def test_leaving_the_cell_out_removes_the_bias_to_its_own_sample():
    """Samples that do not differ: the log ratio is 0 on average in both. With itself, a cell would vote for its own."""
    rng = np.random.default_rng(0)
    mean, codes = rng.normal(size=(2000, 6)), rng.integers(0, 2, 2000)
    var = np.full_like(mean, 0.05)
    found = sample_log_densities(mean, var, codes, max_cells=5000, bandwidth=0.3, random_state=0)
    lfc = log_fold_change(found, np.array([0]), np.array([1])).lfc
    own = np.where(codes == 0, lfc, -lfc)
    assert abs(own.mean()) < 4 * own.std() / np.sqrt(2000)
    naive = [log_density(mean, mean[codes == s], var[codes == s], bandwidth=0.3) for s in (0, 1)]
    biased = np.where(codes == 0, 1, -1) * (naive[0] - naive[1]) / np.log(2)
    assert biased.mean() > 1


def test_a_cap_on_the_cells_of_a_sample_is_repeatable_and_close():
    rng = np.random.default_rng(0)
    mean, codes = rng.normal(size=(3000, 2)), np.zeros(3000, int)
    var = np.full_like(mean, 0.1)
    options = {"bandwidth": 0.0, "random_state": 0}
    whole = sample_log_densities(mean, var, codes, max_cells=3000, **options)
    some, again = (sample_log_densities(mean, var, codes, max_cells=1000, **options) for _ in range(2))
    np.testing.assert_array_equal(some, again)
    assert 0 < np.median(np.abs(some - whole)) < 0.1


def test_the_bandwidth_makes_a_density_an_average_of_enough_cells():
    """In a cloud of cells with narrow posteriors, judged by the perplexity of SciPy's normal densities."""
    rng = np.random.default_rng(0)
    mean, var, codes = rng.normal(size=(300, 3)), np.full((300, 3), 1e-3), np.zeros(300, int)
    chosen = choose_bandwidth(mean, var, codes)

    def averaged(bandwidth):
        log_p = norm.logpdf(mean[:, None], mean, np.sqrt(var + bandwidth**2)).sum(2)
        np.fill_diagonal(log_p, -np.inf)
        share = np.exp(log_p - logsumexp(log_p, axis=1, keepdims=True))
        return np.median(np.exp(-(share * np.log(np.maximum(share, 1e-300))).sum(1)))

    position = BANDWIDTHS.index(chosen)
    assert averaged(chosen) > 0.9 * AVERAGED
    assert averaged(BANDWIDTHS[position - 1]) < 1.1 * AVERAGED
    assert choose_bandwidth(mean, var + 4, codes) == 0
    assert choose_bandwidth(mean, var, np.where(np.arange(300) < 150, 0, -1)) > chosen
