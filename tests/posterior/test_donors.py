import numpy as np
import pytest
from scipy import stats

from scanpy_scvi.posterior.donor_levels import observed_levels, pseudocount, relative_to_typical
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
    some = compare_donors(shift, variance, design, level=levels.mean(0), tested=tested, question=QUESTION)
    wild = np.where(tested, shift, 1e3), np.where(tested, variance, 1e-9)
    same = compare_donors(*wild, design, level=levels.mean(0), tested=tested, question=QUESTION)
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
