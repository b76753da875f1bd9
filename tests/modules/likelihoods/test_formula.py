"""The torch formulas against SciPy, mpmath, and what must be true of any such distribution (U7)."""

import itertools

import mpmath
import numpy as np
import pytest
import torch
from modules.small_models import counts_of
from scipy import integrate, special, stats

from scanpy_scvi.modules.likelihoods import formula


def columns(*arrays, dtype=torch.float64):
    return [
        torch.tensor(np.broadcast_to(a, np.broadcast_shapes(*map(np.shape, arrays))), dtype=dtype)[:, None]
        for a in arrays
    ]


def nll(family, x, mu, theta=1.0, h=0.0, dtype=torch.float64):
    """Per entry, from means rather than logits."""
    x, mu, theta, h = np.broadcast_arrays(*map(np.asarray, (x, mu, theta, h)))
    eta, t, h = columns(np.log(mu), np.log(theta), h, dtype=dtype)
    counts = counts_of(x[:, None])
    if family == "poisson":
        return formula.poisson_nll(counts, eta).numpy()
    if family == "nb":
        return formula.nb_nll(counts, eta, t).numpy()
    return formula.zinb_nll(counts, eta, t, h).numpy()


X = np.array([0, 1, 2, 7, 40, 300.0])
MU = np.array([0.01, 0.4, 3.0, 55.0])
THETA = np.array([0.05, 1.0, 8.0, 300.0])
H = np.array([-4.0, 0.0, 3.0])


def grid(*axes):
    return np.array(list(itertools.product(*axes))).T


def test_poisson_is_scipys():
    x, mu = grid(X, MU)
    np.testing.assert_allclose(-nll("poisson", x, mu), stats.poisson.logpmf(x, mu), rtol=1e-10)


def test_negative_binomial_is_scipys():
    x, mu, theta = grid(X, MU, THETA)
    np.testing.assert_allclose(-nll("nb", x, mu, theta), stats.nbinom.logpmf(x, theta, theta / (theta + mu)), rtol=1e-8)


def test_zero_inflation_is_a_mixture_with_zero():
    x, mu, theta, h = grid(X, MU, THETA, H)
    nb, pi = stats.nbinom.pmf(x, theta, theta / (theta + mu)), special.expit(h)
    with np.errstate(divide="ignore"):
        expected = np.log(pi * (x == 0) + (1 - pi) * nb)
    finite = np.isfinite(expected)  # SciPy's mass underflows far out
    assert finite.mean() > 0.8
    np.testing.assert_allclose(-nll("zinb", x, mu, theta, h)[finite], expected[finite], rtol=1e-8, atol=1e-12)


def test_masses_of_the_tutorial():
    np.testing.assert_allclose(np.exp(-nll("nb", [0, 1, 7], 3.7, 2.5)), [0.103245, 0.154036, 0.049555], atol=5e-7)


@pytest.mark.parametrize(("family", "h"), [("poisson", 0.0), ("nb", 0.0), ("zinb", -1.0), ("zinb", 2.0)])
def test_masses_sum_to_one(family, h):
    x = np.arange(400.0)
    assert np.exp(-nll(family, x, 3.7, 2.5, h)).sum() == pytest.approx(1, abs=1e-10)


def test_negative_binomial_is_a_gamma_mixture_of_poissons():
    for x in (0, 1, 7):
        mass, _ = integrate.quad(
            lambda w, x=x: stats.poisson.pmf(x, w) * stats.gamma.pdf(w, 2.5, scale=3.7 / 2.5), 0, 80
        )
        assert np.exp(-nll("nb", [float(x)], 3.7, 2.5))[0] == pytest.approx(mass, rel=1e-7)


def test_limits():
    x, mu, theta = grid(X, MU, THETA)
    np.testing.assert_allclose(nll("zinb", x, mu, theta, -700.0), nll("nb", x, mu, theta), rtol=1e-10)
    few = x < 100  # the two differ by about ((x - mu)² - x) / 2 theta
    np.testing.assert_allclose(nll("nb", x[few], mu[few], 1e9), nll("poisson", x[few], mu[few]), rtol=1e-5, atol=1e-5)


def exact(family, x, mu, theta, h):
    """-log p(x) to forty digits."""
    with mpmath.workdps(40):
        x, mu, theta, h = map(mpmath.mpf, (float(x), float(mu), float(theta), float(h)))
        if family == "poisson":
            return float(mu - x * mpmath.log(mu) + mpmath.loggamma(x + 1))
        nb = theta * mpmath.log(theta / (theta + mu)) + x * mpmath.log(mu / (theta + mu))
        nb += mpmath.loggamma(x + theta) - mpmath.loggamma(theta) - mpmath.loggamma(x + 1)
        pi = 0 if family == "nb" else 1 / (1 + mpmath.exp(-h))
        return float(-mpmath.log((pi if x == 0 else 0) + (1 - pi) * mpmath.exp(nb)))


@pytest.mark.parametrize("family", ["poisson", "nb", "zinb"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-6), (np.float32, 1e-5)])
def test_both_ends_against_forty_digits(family, dtype, tolerance):
    """1e-5 relative or 1e-5 absolute over the whole grid, of the very numbers that the formula is given."""
    thetas = [1e-4, 1e-1, 7.0, 1e4, 1e7] if family != "poisson" else [1.0]
    logits = [-20, 0, 20] if family == "zinb" else [0]
    x, mu, theta, h = grid([0, 1, 5, 100, 1e4], [1e-6, 1e-2, 3.0, 100.0, 1e4, 1e5], thetas, logits)
    eta, t, h = np.log(mu).astype(dtype), np.log(theta).astype(dtype), h.astype(dtype)
    given = zip(x, np.exp(eta.astype(float)), np.exp(t.astype(float)), h, strict=True)
    want = np.array([exact(family, *row) for row in given])
    eta, t, h = (torch.from_numpy(a)[:, None] for a in (eta, t, h))
    counts = counts_of(x[:, None])
    got = {
        "poisson": lambda: formula.poisson_nll(counts, eta),
        "nb": lambda: formula.nb_nll(counts, eta, t),
        "zinb": lambda: formula.zinb_nll(counts, eta, t, h),
    }[family]().numpy()
    assert np.all(np.abs(got - want) <= tolerance * np.maximum(1, np.abs(want)))


def test_sums_are_over_the_genes_of_a_cell():
    rng = np.random.default_rng(0)
    x, mu = rng.poisson(2.0, (5, 9)).astype(float), rng.uniform(0.1, 6, (5, 9))
    x[3] = 0
    x[3, 4] = 1
    theta, h = rng.uniform(0.2, 5, (1, 9)), rng.normal(0, 2, (5, 9))
    log_mu, log_theta, logits = map(torch.from_numpy, (np.log(mu), np.log(theta), h))
    for family, got in {
        "poisson": formula.poisson_nll(counts_of(x), log_mu),
        "nb": formula.nb_nll(counts_of(x), log_mu, log_theta),
        "zinb": formula.zinb_nll(counts_of(x), log_mu, log_theta, logits),
    }.items():
        entries = nll(family, x.ravel(), mu.ravel(), np.broadcast_to(theta, mu.shape).ravel(), h.ravel()).reshape(5, 9)
        np.testing.assert_allclose(got, entries.sum(1), rtol=1e-12)


def test_means_are_the_library_times_the_softmax():
    logits, log_library = torch.randn(4, 6), torch.tensor([0.0, 3.0, 7.0, -1.0])
    expected = log_library.exp()[:, None] * torch.softmax(logits, 1)
    torch.testing.assert_close(formula.log_means(logits, log_library).exp(), expected)
