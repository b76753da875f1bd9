import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from scanpy_scvi.posterior.comparison import ComparisonOptions, compare_draws
from scanpy_scvi.posterior.effects import (
    REPLICATES,
    PairedDraws,
    delta_by_mixture,
    expected_fdr,
    log_odds,
    pseudocount,
    summarise,
)

PROBABILITIES = arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 1))


def normal_changes(means, sds, n=20_000, seed=0):
    """Draws whose log2 fold changes are normal with these means and standard deviations."""
    rng = np.random.default_rng(seed)
    b = np.exp(rng.normal(-8, 1, (n, len(means))))
    return pairs((b * 2 ** rng.normal(means, sds, b.shape)).astype(np.float32), b.astype(np.float32))


def pairs(a, b):
    """Draws, given one row for each draw."""
    return PairedDraws.one_to_one(np.ascontiguousarray(a.T), np.ascontiguousarray(b.T))


def test_probabilities_and_moments_of_normal_changes():
    means, sds = np.array([0.0, 0.5, -1.0, 3.0]), np.array([0.2, 0.5, 1.0, 0.1])
    found = summarise(normal_changes(means, sds), mode="change", delta=0.25, pseudocount=0.0)
    law = stats.norm(means, sds)
    np.testing.assert_allclose(found.p_up, law.sf(0.25), atol=0.015)
    np.testing.assert_allclose(found.p_down, law.cdf(-0.25), atol=0.015)
    np.testing.assert_allclose(found.mean, means, atol=0.03)
    np.testing.assert_allclose(found.median, means, atol=0.03)
    np.testing.assert_allclose(found.std, sds, rtol=0.03)
    np.testing.assert_allclose(found.low, law.ppf(0.025), atol=0.06)
    np.testing.assert_allclose(found.high, law.ppf(0.975), atol=0.06)


def test_vanilla_asks_which_is_larger():
    draws = normal_changes(np.array([0.1, -0.1]), np.array([1.0, 1.0]))
    found = summarise(draws, mode="vanilla", delta=0.25, pseudocount=1e-10)
    np.testing.assert_array_equal(found.p_up, (draws.first > draws.second).mean(1))
    np.testing.assert_allclose(found.p_up + found.p_down, 1)
    np.testing.assert_array_equal(found.differs("vanilla", "three"), found.p_up)


def test_ways():
    found = summarise(normal_changes(np.zeros(1), np.ones(1)), mode="change", delta=0.5, pseudocount=0.0)
    assert found.differs("change", "two") == pytest.approx(found.p_up + found.p_down)
    assert found.differs("change", "three") == pytest.approx(max(found.p_up, found.p_down))


@pytest.mark.parametrize("n", [3, REPLICATES, 57])
def test_many_genes_and_any_number_of_draws(n):
    """Blocks of genes and parts of the draws leave nothing out."""
    rng = np.random.default_rng(1)
    a, b = rng.gamma(1, size=(2, n, 150)).astype(np.float32)
    found = summarise(pairs(a, b), mode="change", delta=0.3, pseudocount=0.01, interval=0.8)
    lfc = np.log2(a + np.float32(0.01)) - np.log2(b + np.float32(0.01))
    np.testing.assert_allclose(found.p_up, (lfc >= 0.3).mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.p_down, (lfc < -0.3).mean(0), rtol=1e-6)
    for got, share in ((found.low, 0.1), (found.median, 0.5), (found.high, 0.9)):
        np.testing.assert_allclose(got, np.quantile(lfc, share, axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.mean, lfc.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.std, lfc.std(0), rtol=1e-4)
    sizes = np.diff(np.unique(np.arange(REPLICATES) * n // REPLICATES), append=n)
    np.testing.assert_allclose(sizes @ found.up_in_parts / n, found.p_up)


def test_pseudocount_is_what_the_decoder_gives_to_genes_without_counts():
    a, b = np.full((5, 10), 0.1, np.float32), np.full((5, 10), 0.1, np.float32)
    a[2, :2] = 0.03, 0.01
    unexpressed = np.array([0, 0] + [5.0] * 8)
    expressed = np.full(10, 5.0)
    a[:, :2] = np.minimum(a[:, :2], [0.03, 0.01])
    assert pseudocount(pairs(a, b), unexpressed, expressed) == pytest.approx(
        0.028 / 10
    )  # 0.9 of the way from 0.01 to 0.03
    assert pseudocount(pairs(a, b), expressed, expressed) == 1e-10


def test_delta_is_six_tenths_of_the_outer_changes():
    rng = np.random.default_rng(0)
    changes = np.concatenate([rng.normal(0, 0.05, 800), rng.normal(2, 0.05, 100), rng.normal(-1, 0.05, 100)])
    assert delta_by_mixture(changes) == pytest.approx(0.6 * 1.5, rel=0.02)
    assert delta_by_mixture(changes / 1000) == 0.1


@given(PROBABILITIES)
def test_the_expected_fdr_is_the_mean_doubt_of_those_called(proba):
    fdr = expected_fdr(proba)
    for k in range(1, len(proba) + 1):
        called = np.argsort(-proba, kind="stable")[:k]
        assert fdr[called[-1]] == pytest.approx(1 - proba[called].mean(), abs=1e-9)
    assert (np.diff(fdr[np.argsort(-proba, kind="stable")]) >= -1e-12).all()


@given(PROBABILITIES)
def test_log_odds_are_finite_odd_and_rising(proba):
    assert np.isfinite(log_odds(proba)).all()
    np.testing.assert_allclose(log_odds(proba), -log_odds(1 - proba), atol=1e-5)
    assert (np.diff(log_odds(np.sort(proba))) >= 0).all()


def test_reported_changes_can_have_another_pseudocount():
    draws = normal_changes(np.array([1.0, -2.0]), np.array([0.3, 0.3]), n=500)
    counts = np.ones(2), np.ones(2)
    plain = compare_draws(draws, counts, ComparisonOptions(pseudocount=1e-3))
    other = compare_draws(draws, counts, ComparisonOptions(pseudocount=1e-3, reported_with=1e-3))
    np.testing.assert_array_equal(plain.differs, other.differs)
    assert (np.abs(other.effects.mean) > np.abs(plain.effects.mean)).all()


def test_delta_cannot_be_found_from_a_few_genes():
    draws = normal_changes(np.zeros(2), np.ones(2), n=20)
    with pytest.raises(ValueError, match="Pass a number"):
        compare_draws(draws, (np.ones(2), np.ones(2)), ComparisonOptions(delta=None))
