import numpy as np
import reference
from modules.small_models import DIMS, table, table_of
from scipy import sparse, stats

from scanpy_scvi.numerics.sparse import CSRRows
from scanpy_scvi.posterior.group_means import GroupSums, standardised_difference, welch_t
from scanpy_scvi.training.batches import CellTable


def test_means_of_groups_and_of_groups_together():
    data = table(40)
    x = reference.dense(data.counts, DIMS.n_genes)
    codes = np.arange(40) % 4 - 1  # -1: in no group
    sums = GroupSums(data, codes, 3)
    for groups in ([0], [2, 1]):
        inside = np.isin(codes, groups)
        found = sums.of(groups)
        scaled = (1e4 * x / x.sum(1, keepdims=True))[inside]
        assert found.n_cells == inside.sum()
        np.testing.assert_array_equal(found.total, x[inside].sum(0))
        np.testing.assert_allclose(found.raw, x[inside].mean(0))
        np.testing.assert_allclose(found.nonzero, (x[inside] > 0).mean(0))
        np.testing.assert_allclose(found.normalized, scaled.mean(0), rtol=1e-5)
        np.testing.assert_allclose(found.squares, (scaled**2).mean(0), rtol=1e-5)
        np.testing.assert_allclose(found.inverse_total, (1e4 / x[inside].sum(1)).mean(), rtol=1e-5)
        np.testing.assert_allclose(found.logs, np.log1p(scaled).mean(0), rtol=1e-4)
        excess = found.n_cells * (scaled.var(0, ddof=1) - found.inverse_total * scaled.mean(0))
        np.testing.assert_allclose(found.excess(), excess, rtol=1e-3, atol=1e-3 * np.abs(excess).max())


def test_t_is_that_of_scipy():
    data = table(60)
    x = reference.dense(data.counts, DIMS.n_genes)
    logs = np.log1p(1e4 * x / x.sum(1, keepdims=True))
    codes = np.arange(60) % 3
    sums = GroupSums(data, codes, 3)
    expected = stats.ttest_ind(logs[codes == 1], logs[codes != 1], equal_var=False).statistic
    np.testing.assert_allclose(welch_t((sums.of([1]), sums.of([0, 2]))), expected, rtol=1e-3)


def test_equal_counts_in_few_cells_are_no_proof():
    data = table_of(np.array([[5, 5], [5, 5], [1, 9], [1, 9]]))
    sums = GroupSums(data, np.array([0, 0, 1, 1]), 2)
    assert np.abs(welch_t((sums.of([0]), sums.of([1])))).max() < 200


def test_one_cell_has_the_variance_of_the_others():
    data = table(40)
    sums = GroupSums(data, np.arange(40) > 0, 2)
    one, rest = sums.of([0]), sums.of([1])
    assert (one.excess() == 0).all()
    spread = np.sqrt(np.maximum(rest.log_squares - rest.logs**2, 1e-4))
    assert (np.abs(welch_t((one, rest))) <= 1.01 * np.abs(one.logs - rest.logs) / spread).all()


def two_groups(rho, theta, n_cells, seed):
    """NB counts of two groups with the same proportions, and their cells' groups."""
    rng = np.random.default_rng(seed)
    codes = np.repeat([0, 1], n_cells)
    total = rng.lognormal(8, 0.3, 2 * sum(n_cells))[: len(codes)]
    mu = total[:, None] * rho
    x = sparse.csr_array(rng.poisson(mu * rng.gamma(theta, 1 / theta, mu.shape)).astype(np.float32))
    n = len(codes)
    none = np.zeros(n, np.int64)
    log_total = np.log(total).astype(np.float32)
    rows = CSRRows(x.indptr.astype(np.int64), x.indices, x.data)
    return CellTable(
        rows, len(rho), log_total, log_total, none, none, np.empty((n, 0), np.int64), np.empty((n, 0), np.float32)
    ), codes


def test_without_a_difference_the_score_is_standard_normal():
    """The denominator is the standard error of the difference, whatever the mean, dispersion and size of groups."""
    rho = np.full(300, 1 / 300)
    rho[:100] /= 30
    rho /= rho.sum()
    theta = np.tile([0.5, 2.0, 100.0], 100)
    data, codes = two_groups(rho, theta, (400, 150), 0)
    sums = GroupSums(data, codes, 2)
    means = sums.of([0]), sums.of([1])
    z = standardised_difference(tuple(m.normalized for m in means), means)
    assert abs(z.mean()) < 0.2
    for part in (np.arange(300) < 100, np.arange(300) >= 100, theta == 0.5, theta == 100):
        assert 0.85 < z[part].std() < 1.15


def test_more_cells_and_more_counts_give_larger_scores():
    rho, double = np.full(60, 1 / 60), np.full(60, 2 / 60)
    scores = []
    for n_cells, factor in (((50, 50), 1.0), ((500, 500), 1.0), ((50, 50), 0.01)):
        data, codes = two_groups(rho * factor, np.full(60, 5.0), n_cells, 1)
        sums = GroupSums(data, codes, 2)
        z = standardised_difference((1e4 * double * factor, 1e4 * rho * factor), (sums.of([0]), sums.of([1])))
        assert (z > 0).all()
        scores.append(np.median(z))
    assert scores[1] > 2 * scores[0] > 4 * scores[2]


def test_a_gene_without_counts_and_without_expectation_has_no_score():
    data, codes = two_groups(np.array([0.5, 0.5, 0.0]), np.full(3, 5.0), (20, 20), 2)
    sums = GroupSums(data, codes, 2)
    z = standardised_difference((np.array([0.6, 0.4, 0]), np.array([0.5, 0.5, 0])), (sums.of([0]), sums.of([1])))
    assert z[2] == 0
    assert np.isfinite(z).all()
