import numpy as np
import pytest
from scipy import stats
from scipy.special import digamma, polygamma

from scanpy_scvi.posterior.moderation import inverse_trigamma, moderate, natural_spline

N = 20_000


def variances(rng, d, d0, prior):
    """What the hierarchical model of Smyth 2004 draws."""
    true = d0 * prior / rng.chisquare(d0, N) if np.isfinite(d0) else np.full(N, prior)
    return true * rng.chisquare(d, N) / d, true


def smyths_trigamma_inverse(x):
    """The Newton iteration of the paper's appendix."""
    y = 0.5 + 1 / x
    for _ in range(100):
        step = polygamma(1, y) * (1 - polygamma(1, y) / x) / polygamma(2, y)
        y += step
        if -step / y < 1e-10:
            break
    return y


@pytest.mark.parametrize(("d", "d0", "prior"), [(4, 8.0, 0.3), (2, 3.0, 0.05), (18, 20.0, 1.0)])
def test_equals_smyths_closed_form(d, d0, prior):
    s2, _ = variances(np.random.default_rng(0), d, d0, prior)
    found = moderate(s2, d)
    e = np.log(s2) - digamma(d / 2) + np.log(d / 2)
    expected_d0 = 2 * smyths_trigamma_inverse(e.var(ddof=1) - polygamma(1, d / 2))
    expected_prior = np.exp(e.mean() + digamma(expected_d0 / 2) - np.log(expected_d0 / 2))
    np.testing.assert_allclose(found.prior_df, expected_d0, rtol=1e-6)
    np.testing.assert_allclose(found.prior, expected_prior, rtol=1e-6)
    expected = (expected_d0 * expected_prior + d * s2) / (expected_d0 + d)
    np.testing.assert_allclose(found.variance, expected, rtol=1e-6)
    assert found.prior_df == pytest.approx(d0, rel=0.15)
    assert found.prior[0] == pytest.approx(prior, rel=0.05)


def test_estimates_over_moderated_errors_have_the_t_distribution():
    rng = np.random.default_rng(1)
    s2, true = variances(rng, 3, 6.0, 0.2)
    found = moderate(s2, 3)
    estimates = rng.normal(0, np.sqrt(true / 4))
    t = estimates / np.sqrt(found.variance / 4)
    assert stats.kstest(t, stats.t(3 + found.prior_df).cdf).pvalue > 1e-3
    assert stats.kstest(estimates / np.sqrt(s2 / 4), stats.norm.cdf).pvalue < 1e-10  # what is not to be done


def test_variances_that_differ_by_chance_alone_are_all_the_same():
    s2, _ = variances(np.random.default_rng(2), 5, np.inf, 0.5)
    found = moderate(s2[:400], 5)
    if np.isfinite(found.prior_df):
        assert found.prior_df > 50
    else:
        np.testing.assert_array_equal(found.variance, found.prior)
    flat = moderate(np.full(100, 0.7), 5)
    assert flat.prior_df == np.inf
    assert np.ptp(flat.variance) < 1e-12


def test_prior_follows_the_level():
    rng = np.random.default_rng(3)
    level = rng.uniform(-15, -5, N)
    scale = np.exp(-(level + 10) / 2)
    s2, _ = variances(rng, 4, 10.0, 0.1)
    found = moderate(scale * s2, 4, level)
    np.testing.assert_allclose(found.prior, 0.1 * scale, rtol=0.15)
    assert found.prior_df == pytest.approx(10, rel=0.15)
    assert moderate(scale * s2, 4).prior_df < 4  # without the level, genes seem to differ more


def test_a_gene_that_does_not_vary_is_no_certain_one():
    s2 = np.random.default_rng(4).chisquare(4, 100)
    s2[0] = 0
    found = moderate(s2, 4)
    assert found.variance.min() > 0
    assert found.prior_df > 0
    with pytest.raises(ValueError, match="copies of one another"):
        moderate(np.zeros(10), 4)


def test_genes_that_differ_by_counting_alone_do_not_vouch_for_the_others():
    rng = np.random.default_rng(5)
    few, _ = variances(rng, 6, np.inf, 1.0)  # all alike
    many, _ = variances(rng, 6, 4.0, 1.0)
    s2, level = np.r_[few, many[:1000]], np.r_[rng.uniform(-15, -10, N), rng.uniform(-10, -5, 1000)]
    assert moderate(s2, 6, level).prior_df > 20
    assert moderate(s2, 6, level, level > -10).prior_df == pytest.approx(4, rel=0.25)
    too_few = level > -5.1
    assert 0 < too_few.sum() < 50
    assert moderate(s2, 6, level, too_few).prior_df == moderate(s2, 6, level).prior_df


def test_trigamma_is_inverted():
    assert inverse_trigamma(np.pi**2 / 6) == pytest.approx(1)
    assert inverse_trigamma(np.pi**2 / 2) == pytest.approx(0.5)
    for x in (1e-3, 0.2, 7.0, 1e4):
        assert inverse_trigamma(float(polygamma(1, x))) == pytest.approx(x, rel=1e-6)


def test_spline_is_smooth_and_straight_beyond_its_knots():
    x = np.linspace(0, 1, 401)
    columns = natural_spline(np.r_[x, x])[:401]  # many genes: all knots
    assert columns.shape[1] == 5
    third = np.diff(columns, 3, axis=0)
    assert np.abs(np.diff(third, axis=0)).max() < 1e-4  # no jump in the second derivative
    np.testing.assert_allclose(np.diff(columns, 2, axis=0)[[0, -1]], 0, atol=1e-4)
    assert natural_spline(np.array([3.0])).shape == (1, 1)
    assert natural_spline(np.full(100, 3.0)).shape == (100, 1)
