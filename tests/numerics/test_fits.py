"""Per-gene maximum-likelihood fits: against SciPy's optimisers, on simulated counts, and at their edges."""

import numpy as np
import pytest
import reference
from scipy import optimize, sparse

from scanpy_scvi.numerics import negative_binomial, poisson, zero_inflated

FAMILIES = {"poisson": poisson, "nb": negative_binomial, "zinb": zero_inflated}


def simulate(n=400, genes=24, seed=0, inflated=True):
    """Counts, size factors and the true (mean, theta, pi) of each gene: rare and common, Poisson-like and bursty."""
    rng = np.random.default_rng(seed)
    mean, theta = np.exp(rng.uniform(-3, 3, genes)), np.exp(rng.uniform(-2, 3, genes))
    pi = rng.beta(0.7, 1.5, genes) if inflated else np.zeros(genes)
    factors = np.exp(rng.normal(0, 0.5, n))
    x = rng.poisson(factors[:, None] * mean * rng.gamma(theta, 1 / theta, (n, genes)))
    return x * (rng.random((n, genes)) > pi), factors, (mean, theta, pi)


def scipy_maximum(x, factors, zero_inflation):
    """Best log-likelihood of one gene that L-BFGS-B finds from several starts, on the slow reference."""

    def nll(point):
        mu, theta = factors * np.exp(point[0]), np.exp(point[1])
        if zero_inflation:
            slopes = reference.zinb_slopes(x, mu, theta, np.full_like(mu, point[2]))
            return -reference.zinb_logpmf(x, mu, theta, point[2]).sum(), -np.array([s.sum() for s in slopes])
        return -reference.nb_logpmf(x, mu, theta).sum(), -np.array([s.sum() for s in reference.nb_slopes(x, mu, theta)])

    best = -np.inf
    bounds = [(-30, 30), (np.log(1e-8), np.log(1e6)), (-30, 30)][: 2 + zero_inflation]
    for log_theta in (-1.0, 1.0, 4.0):
        for h in (-3.0, 0.0, 2.0) if zero_inflation else (0.0,):
            start = [np.log(x.mean()) + 0.2, log_theta, h][: 2 + zero_inflation]
            best = max(best, -optimize.minimize(nll, start, jac=True, method="L-BFGS-B", bounds=bounds).fun)
    return best


@pytest.mark.parametrize("with_factors", [False, True])
@pytest.mark.parametrize("family", ["nb", "zinb"])
def test_no_worse_than_scipy(family, with_factors):
    x, factors, _ = simulate()
    factors = factors if with_factors else np.ones(len(x))
    got = FAMILIES[family].fit(x, factors if with_factors else None)
    for g in range(x.shape[1]):
        want = scipy_maximum(x[:, g].astype(float), factors, family == "zinb")
        # Not below; above only where L-BFGS-B stopped early.
        assert -1e-7 < (got.log_likelihood[g] - want) / abs(want) < 1e-4


@pytest.mark.parametrize("with_factors", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_log_likelihood_is_that_of_the_parameters(family, with_factors):
    x, factors, _ = simulate()
    factors = factors[:, None] if with_factors else np.ones((len(x), 1))
    got = FAMILIES[family].fit(x, factors[:, 0] if with_factors else None)
    mean, *rest, log_likelihood = got
    np.testing.assert_allclose(FAMILIES[family].logpmf(x, factors * mean, *rest, axis=0), log_likelihood, rtol=1e-10)


@pytest.mark.parametrize("family", ["nb", "zinb"])
def test_gradient_vanishes_at_an_inner_maximum(family):
    x, factors, _ = simulate(seed=1)
    mean, *rest, _ = FAMILIES[family].fit(x, factors)
    slopes = FAMILIES[family].gradient(x, factors[:, None] * mean, *rest)
    inner = (rest[0] < 1e5) & np.isfinite(rest[-1])
    assert inner.sum() >= 6
    by_log_mean = (slopes.mu * factors[:, None] * mean).sum(0)
    by_log_theta = slopes.theta.sum(0) * rest[0]
    np.testing.assert_allclose(by_log_mean[inner], 0, atol=1e-2)
    np.testing.assert_allclose(by_log_theta[inner], 0, atol=1e-2)


def test_poisson_mean_is_closed_form():
    x, factors, _ = simulate()
    np.testing.assert_allclose(poisson.fit(x).mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(poisson.fit(x, factors).mean, x.sum(0) / factors.sum(), rtol=1e-12)


def test_negative_binomial_mean_without_size_factors_is_the_mean():
    x, factors, _ = simulate()
    np.testing.assert_allclose(negative_binomial.fit(x).mean, x.mean(0), rtol=1e-9)
    # With them, the closed form of the Poisson is not the maximum.
    assert np.abs(negative_binomial.fit(x, factors).mean / poisson.fit(x, factors).mean - 1).max() > 1e-3


@pytest.mark.parametrize("with_factors", [False, True])
def test_recovers_simulated_parameters(with_factors):
    rng = np.random.default_rng(3)
    n, copies, mean, theta, pi = 2000, 40, 6.0, 1.5, 0.3
    factors = np.exp(rng.normal(0, 0.4, n)) if with_factors else np.ones(n)
    plain = rng.poisson(factors[:, None] * mean * rng.gamma(theta, 1 / theta, (n, copies)))
    inflated = plain * (rng.random((n, copies)) > pi)
    nb = negative_binomial.fit(plain, factors if with_factors else None)
    zinb = zero_inflated.fit(inflated, factors if with_factors else None)
    share = 1 / (1 + np.exp(-zinb.zero_logits))
    for estimates, truth in ((nb.mean, mean), (nb.theta, theta), (zinb.mean, mean), (zinb.theta, theta), (share, pi)):
        # Forty replicates: their mean lies within four standard errors of the truth, and they do not scatter.
        assert abs(estimates.mean() - truth) < 4 * estimates.std() / np.sqrt(copies) + 0.01 * truth
        assert estimates.std() < 0.2 * truth


@pytest.mark.parametrize("with_factors", [False, True])
def test_zero_inflation_never_lowers_the_likelihood(with_factors):
    for seed in range(3):
        x, factors, _ = simulate(seed=seed, inflated=seed > 0, genes=60)
        factors = factors if with_factors else None
        nb, zinb = negative_binomial.fit(x, factors), zero_inflated.fit(x, factors)
        assert (zinb.log_likelihood >= nb.log_likelihood).all()
        none = np.isneginf(zinb.zero_logits)
        assert none.any()
        assert not none.all()
        np.testing.assert_array_equal(zinb.log_likelihood[none], nb.log_likelihood[none])
        np.testing.assert_array_equal(zinb.theta[none], nb.theta[none])


def test_likelihood_ratio_of_counts_without_inflation():
    # At the edge of the parameters twice the gain is 0 for half of the genes and chi² with 1 degree for the others.
    x, _, _ = simulate(n=1500, genes=300, seed=5, inflated=False)
    gain = 2 * (zero_inflated.fit(x).log_likelihood - negative_binomial.fit(x).log_likelihood)
    gain = gain[(x > 0).mean(0) > 0.1]
    assert len(gain) > 150
    assert (gain > 2.71).mean() < 0.1
    assert (gain == 0).mean() > 0.3


@pytest.mark.parametrize("with_factors", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_sparse_equals_dense(family, with_factors):
    x, factors, _ = simulate(genes=9)
    factors = factors if with_factors else None
    want = FAMILIES[family].fit(x.astype(np.float64), factors)
    for source in (
        sparse.csr_matrix(x),
        sparse.csr_array(x.astype(np.float32)),
        sparse.csc_matrix(x.astype(np.int32)),
        x.astype(np.float32),
    ):
        for a, b in zip(FAMILIES[family].fit(source, factors), want, strict=True):
            assert a.dtype == np.float64
            np.testing.assert_array_equal(a, b)


def test_equal_size_factors_are_a_unit():
    x, _, _ = simulate(genes=9)
    for family in FAMILIES.values():
        one, two = family.fit(x), family.fit(x, np.full(len(x), 2.0))
        np.testing.assert_allclose(two.mean, one.mean / 2, rtol=1e-4)
        np.testing.assert_allclose(two.log_likelihood, one.log_likelihood, rtol=1e-8)


def test_edges():
    n = 50
    x = np.zeros((n, 5))
    x[:, 1] = 3  # no variance
    x[:, 2] = np.arange(n) % 2  # less than Poisson's
    x[7, 3] = 40  # one cell has it all
    x[:, 4] = np.r_[np.zeros(25), np.full(25, 20)]  # half empty, the rest the same
    factors = np.linspace(0.5, 2, n)
    for size_factors in (None, factors):
        p, nb, zinb = (family.fit(x, size_factors) for family in FAMILIES.values())
        for fitted in (p, nb, zinb):
            assert fitted.mean[0] == 0
            assert fitted.log_likelihood[0] == 0
            assert np.isfinite(fitted.log_likelihood).all()
        assert np.isnan(nb.theta[0])
        assert np.isnan(zinb.theta[0])
        assert np.isnan(zinb.zero_logits[0])
        assert nb.theta[2] == negative_binomial.THETA_MAX
        assert 0 < nb.theta[3] < 0.05
    assert negative_binomial.fit(x).theta[1] == negative_binomial.THETA_MAX
    zinb = zero_inflated.fit(x)
    assert zinb.theta[4] == pytest.approx(1e6)
    assert zinb.mean[4] == pytest.approx(20, rel=1e-4)
    assert zinb.zero_logits[4] == pytest.approx(0, abs=1e-4)
    assert np.isneginf(zinb.zero_logits[1])  # no zeros to inflate


def test_large_and_fractional_counts():
    rng = np.random.default_rng(6)
    large = rng.negative_binomial(3, 3 / (3 + 20_000), (300, 1))
    assert negative_binomial.fit(large).theta[0] == pytest.approx(3, rel=0.3)
    fractional = rng.gamma(2, 3, (300, 2))
    fitted = negative_binomial.fit(fractional)
    expected = scipy_maximum(fractional[:, 0], np.ones(300), zero_inflation=False)
    assert fitted.log_likelihood[0] == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(
    ("x", "factors", "message"),
    [
        (np.ones(3), None, r"`x` has shape \(3,\); a fit needs cells x genes"),
        (np.ones((0, 3)), None, "with at least one cell"),
        (-np.ones((2, 2)), None, "counts must be finite and not negative"),
        (
            np.ones((2, 2)),
            [1.0],
            "`size_factors` must be one positive, finite number for each of the 2 cells",
        ),
        (np.ones((2, 2)), [1.0, 0.0], r"smallest 0\.0"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_bad_input_says_what_is_wrong(family, x, factors, message):
    with pytest.raises(ValueError, match=message):
        FAMILIES[family].fit(x, factors)
