import numpy as np
import pytest
from scipy import stats

from scanpy_scvi.posterior.donor_levels import log_bias, observed_levels, pseudocount, relative_to_typical
from scanpy_scvi.posterior.donors import Design, Question, compare_donors

QUESTION = Question(delta=0.25, fdr_target=0.05, interval=0.95)


@pytest.fixture
def levels():
    return np.random.default_rng(0).normal(size=(9, 50))


def test_paired_is_the_paired_t_test(levels):
    design = Design(np.arange(4), 4 + np.arange(4), paired=True)
    t = design.shift(levels) / np.sqrt(design.variance(levels) * design.factor)
    expected = stats.ttest_rel(levels[:4], levels[4:8])
    np.testing.assert_allclose(t, expected.statistic)
    assert design.df == expected.df[0]


def test_unpaired_is_the_pooled_t_test(levels):
    design = Design(np.arange(4), 4 + np.arange(5), paired=False)
    t = design.shift(levels) / np.sqrt(design.variance(levels) * design.factor)
    expected = stats.ttest_ind(levels[:4], levels[4:])
    np.testing.assert_allclose(t, expected.statistic)
    assert design.df == expected.df[0]


def test_genes_that_are_not_tested_have_no_part(levels):
    design = Design(np.arange(4), 4 + np.arange(5), paired=False)
    shift, variance = design.shift(levels), design.variance(levels)
    tested = np.arange(50) >= 10
    some = compare_donors(
        shift, variance, design, level=levels.mean(0), tested=tested, well_seen=tested, question=QUESTION
    )
    wild = np.where(tested, shift, 1e3), np.where(tested, variance, 1e-9)
    same = compare_donors(*wild, design, level=levels.mean(0), tested=tested, well_seen=tested, question=QUESTION)
    np.testing.assert_array_equal(some.differs, same.differs)
    assert (some.differs[:10] == 0).all()
    assert (some.fdr[:10] == 1).all()
    assert np.isnan(some.mean[:10]).all()
    assert not some.called[:10].any()
    assert np.isfinite(some.mean[10:]).all()


def test_the_typical_gene_is_the_fixed_point():
    rng = np.random.default_rng(0)
    proportion = rng.dirichlet(np.full(60, 5.0))
    changed = proportion.copy()
    changed[:5] *= 40  # all others fall, as proportions add up to one
    counts = np.stack([1e6 * proportion, 4e5 * changed / changed.sum()])
    levels = observed_levels(counts, c := pseudocount(counts.sum(1)))
    assert np.median(levels[1] - levels[0]) < -1
    shift = np.diff(relative_to_typical(levels, counts), axis=0)[0]
    np.testing.assert_allclose(shift[5:], 0, atol=0.01)
    np.testing.assert_allclose(shift[:5], np.log2(40), atol=0.01)
    assert c == pytest.approx(0.5 / counts.sum(1).mean())
    np.testing.assert_array_equal(relative_to_typical(levels, counts / 1e6), levels)  # too few counts to tell


@pytest.mark.parametrize("added", [0.05, 0.5, 3.0])
def test_bias_of_the_logarithm_is_that_of_poisson_counts(added):
    means = np.array([0.0, 1e-4, 0.01, 0.3, 1.0, 7.7, 60.0, 99.0, 101.0, 5000.0])
    x = np.arange(10_000)
    expected = stats.poisson.pmf(x, means[:, None]) @ np.log2(x + added) - np.log2(means + added)
    np.testing.assert_allclose(log_bias(means, added), expected, atol=5e-4)


def test_depth_alone_changes_no_level():
    rng = np.random.default_rng(0)
    share = rng.dirichlet(np.full(400, 0.5))
    deep, shallow = rng.poisson(20_000 * share, (300, 400)), rng.poisson(1_000 * share, (300, 400))
    counts = np.concatenate([deep, shallow]).astype(float)
    c = pseudocount(counts.sum(1))
    seen = counts.mean(0) > 0.5

    def z(y):
        two = y[:300, seen], y[300:, seen]
        return (two[0].mean(0) - two[1].mean(0)) / np.sqrt(sum(side.var(0) for side in two) / 300)

    assert np.abs(z(np.log2(counts / counts.sum(1, keepdims=True) + c))).max() > 10
    found = z(observed_levels(counts, c))
    assert np.abs(found).max() < 5
    assert found.std() == pytest.approx(1, abs=0.15)


def test_batches_cost_degrees_of_freedom_and_may_leave_nothing(levels):
    sides = np.arange(4), 4 + np.arange(4)

    def design(batch, *, paired=False):
        return Design(*sides, paired, np.eye(3)[np.array(batch)])

    balanced = design([0, 0, 1, 1, 0, 0, 1, 1])
    plain = Design(*sides, paired=False)
    assert (balanced.df, plain.df) == (5, 6)
    np.testing.assert_allclose(balanced.shift(levels), plain.shift(levels))  # the same batches on both sides
    within = [stats.linregress([1, 1, 0, 0], levels[[a, a + 1, a + 4, a + 5], 0]).slope for a in (0, 2)]
    assert balanced.shift(levels)[0] == pytest.approx(np.mean(within))
    assert design([0, 0, 1, 1, 1, 1, 0, 2]).tells
    assert design([0, 0, 1, 1, 1, 1, 0, 2]).df == 4
    assert not design([0, 0, 0, 0, 1, 1, 1, 1]).tells
    assert not design([0, 0, 1, 1, 2, 2, 2, 2]).tells
    assert not design([0, 0, 0, 0, 1, 1, 1, 1], paired=True).tells
    pairs = design([0, 1, 2, 0, 0, 1, 2, 0], paired=True)  # both samples of a donor in one batch
    assert (pairs.tells, pairs.df) == (True, 3)
    np.testing.assert_allclose(pairs.variance(levels), Design(*sides, paired=True).variance(levels))
    crossed = design([0, 0, 1, 1, 1, 1, 0, 0], paired=True)
    assert (crossed.tells, crossed.df) == (True, 2)
    level = levels.copy()
    level[[0, 1, 6, 7]] += 5  # what the batch adds is taken away again
    np.testing.assert_allclose(crossed.shift(level), crossed.shift(levels))
