import numpy as np
import pytest
from scipy import integrate, stats

from scanpy_scvi.posterior.group_draws import Expected
from scanpy_scvi.posterior.group_means import GroupMeans
from scanpy_scvi.posterior.residuals import Residuals, _squared_error, add_residuals, residuals, shrink


def of(r, se):
    """Residuals of genes that were all seen."""
    return Residuals(r, se, np.ones(len(r), bool))


@pytest.fixture(scope="module")
def sparse_changes():
    """One gene in ten changes; standard errors vary."""
    rng = np.random.default_rng(0)
    beta = np.where(np.arange(2000) % 10 == 0, rng.normal(0, 1, 2000), 0.0)
    se = rng.choice([0.1, 0.3, 1.0], 2000)
    return beta, beta + se * rng.normal(size=2000), se


def drawn(posterior, n):
    """Draws of beta, (n_genes, n)."""
    scales = np.ones((len(posterior.weights), n), np.float32)
    add_residuals(posterior, scales, np.random.default_rng(1))
    return np.log(scales)


def test_shrinkage_beats_the_raw_residual_and_is_calibrated(sparse_changes):
    beta, r, se = sparse_changes
    posterior = shrink(of(r, se))
    assert np.mean((posterior.mean - beta) ** 2) < 0.15 * np.mean((r - beta) ** 2)
    changed = np.abs(beta) > 1
    sure = changed & (se == 0.1)
    np.testing.assert_allclose(posterior.mean[sure], beta[sure], atol=0.35)
    draws = drawn(posterior, 200)
    below = (draws < beta[:, None]).mean(1)[(se == 0.1) & (np.abs(r) > 0.6)]  # chosen by what was seen
    assert len(below) > 30
    assert stats.kstest(below, "uniform").pvalue > 0.01


def test_without_changes_nothing_is_added():
    rng = np.random.default_rng(2)
    se = rng.uniform(0.05, 1, 1500)
    posterior = shrink(of(se * rng.normal(size=1500), se))
    assert np.abs(posterior.mean).max() < 0.03


def test_posterior_is_bayes_rule():
    """Against numerical integration of prior times likelihood, with the prior that was found."""
    rng = np.random.default_rng(3)
    se = np.full(400, 0.3)
    r = np.where(np.arange(400) < 80, rng.normal(0, 1.5, 400), 0) + se * rng.normal(size=400)
    posterior = shrink(of(r, se))
    sds = posterior.sds[0] / se[0]  # sqrt of sigma^2 / (sigma^2 + s^2)
    sigma = se[0] * sds / np.sqrt(1 - sds**2)
    evidence = stats.norm(0, np.hypot(sigma, se[0])).pdf(r[:, None])
    pi = np.full(len(sigma), 1 / len(sigma))
    for _ in range(400):
        joint = pi * evidence
        pi = (joint / joint.sum(1, keepdims=True)).sum(0) + np.append(10.0, np.zeros(len(sigma) - 1))
        pi /= pi.sum()

    def unnormalised(b):
        return (pi[1:] * stats.norm(0, sigma[1:]).pdf(b)).sum() * stats.norm(b, se[0]).pdf(r[5])

    spike = pi[0] * stats.norm(0, se[0]).pdf(r[5])
    mass = integrate.quad(unnormalised, -8, 8, points=[r[5], 0], limit=400)[0] + spike
    mean = integrate.quad(lambda b: b * unnormalised(b), -8, 8, points=[r[5], 0], limit=400)[0] / mass
    assert posterior.mean[5] == pytest.approx(mean, abs=0.02)


def test_only_genes_with_something_to_add_are_touched():
    posterior = shrink(of(np.append(np.zeros(300), 2.0), np.full(301, 0.05)))
    scales = np.ones((301, 50), np.float32)
    add_residuals(posterior, scales, np.random.default_rng(5))
    assert (scales[:300] == 1).all()
    np.testing.assert_allclose(np.log(scales[300]).mean(), 2.0, atol=0.05)


def test_residual_is_what_was_counted_over_what_was_expected():
    def side(normalized, n):
        normalized = np.asarray(normalized)
        return GroupMeans(n, *[normalized] * 4, normalized**2 + normalized, normalized, normalized, 1.0)

    none = np.zeros(2)
    means = side([40.0, 0.0], 100), side([10.0, 5.0], 400)
    expected = Expected(np.array([20.0, 5.0]), none), Expected(np.array([10.0, 5.0]), none)
    r, se, seen = residuals(expected, means)
    assert seen.all()
    assert r[0] == pytest.approx(np.log(2), rel=1e-3)
    deviance = 2 * (4000 * np.log(2) - 2000)  # 4,000 Poisson counts where 2,000 were expected
    assert se[0] == pytest.approx((np.log(2) ** 2 / deviance + 1 / 4000) ** 0.5, rel=0.01)
    assert r[1] == pytest.approx(np.log(0.5 / 500.5), rel=1e-3)
    # nothing counted where 500 were expected: a deviance of 1,000; beside it 2,000 counts of the other group
    assert se[1] == pytest.approx((r[1] ** 2 / 1000 + 1 / 2000) ** 0.5, rel=1e-2)


@pytest.mark.parametrize("phi", [0.0, 0.02])
@pytest.mark.parametrize("mu", [0.3, 3.0, 40.0, 2000.0])
def test_few_counts_are_not_taken_for_strong_evidence(mu, phi):
    """Standardised residuals of counts that are as expected are no wider than a normal."""
    rng = np.random.default_rng(6)
    x = rng.poisson(mu * (rng.gamma(1 / phi, phi, 20_000) if phi else np.ones(20_000))).astype(float)
    r = np.log((x + 0.5) / (mu + 0.5))
    z = np.abs(r) / np.sqrt(_squared_error(r, x, np.full(20_000, mu), np.full(20_000, phi)))
    for least in (2.0, 3.0):
        assert (z > least).mean() < 1.6 * 2 * stats.norm.sf(least) + 0.002  # counts are discrete
    if mu > 30:
        assert z.std() + z.mean() == pytest.approx(0.6028 + 0.7979, rel=0.05)  # of the half normal


def test_genes_that_nobody_could_have_seen_say_nothing_of_the_others():
    rng = np.random.default_rng(7)
    r = np.where(np.arange(300) < 90, rng.normal(0, 1.5, 300), 0) + 0.4 * rng.normal(size=300)
    alone = shrink(of(r, np.full(300, 0.4))).mean
    seen = np.arange(4300) < 300
    r, se = np.append(r, np.full(4000, -0.02)), np.append(np.full(300, 0.4), np.full(4000, 1.4))
    np.testing.assert_array_equal(shrink(Residuals(r, se, seen)).mean[:300], alone)
    assert np.abs(shrink(Residuals(r, se, np.ones(4300, bool))).mean[:300] - alone).max() > 0.2


def test_a_gene_is_seen_where_it_is_counted_or_expected():
    def side(normalized):
        normalized = np.asarray(normalized)
        return GroupMeans(100, *[normalized] * 4, normalized**2 + normalized, normalized, normalized, 1.0)

    none = np.zeros(3)
    means = side([0.0, 0.0, 0.05]), side([1.0, 0.005, 0.0])
    expected = Expected(np.array([0.5, 0.5, 0.001]), none), Expected(np.array([1.0, 0.005, 0.2]), none)
    found = residuals(expected, means)
    assert found.seen.tolist() == [True, False, True]
    assert (found.se[~found.seen] > 1).all()


def test_draws_that_repeat_each_other_tell_less_of_the_mean():
    scales = np.random.default_rng(8).random((3, 50)).astype(np.float32)
    full, half = Expected.of(scales), Expected.of(scales, worth=0.5)
    np.testing.assert_array_equal(full.mean, half.mean)
    np.testing.assert_allclose(half.variance, 2 * full.variance)
