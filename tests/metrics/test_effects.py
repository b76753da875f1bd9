"""Effects of perturbations, against the formula written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from scanpy_scvi.metrics import ate
from scanpy_scvi.metrics.groups import moments

NAMES = np.array(["control", "A/1", "B", "C"])


def _screen(seed=0, n=60, n_genes=30):
    rng = np.random.default_rng(seed)
    rates = rng.gamma(1, 5, n_genes) * np.exp(
        np.random.default_rng(9).normal(0, [[0], [0.5], [0.7], [0.9]], (4, n_genes))
    )
    groups = np.repeat(np.arange(4), [n, n, n // 2, 2 * n])
    order = rng.permutation(len(groups))
    return rng.poisson(rates[groups[order]]), NAMES[groups[order]]


def _effects(counts, groups):
    log = np.log2(1 + 1e4 * counts / counts.sum(1, keepdims=True))
    return {k: log[groups == k].mean(0) - log[groups == "control"].mean(0) for k in NAMES[1:]}


def test_scores_are_the_formula():
    (x, of_x), (y, of_y) = _screen(1), _screen(2)
    found = ate(x, of_x, y, of_y, top_n=5)
    made, real = _effects(x, of_x), _effects(y, of_y)
    assert found.groups.tolist() == ["A/1", "B", "C"]
    assert found.n_cells.tolist() == [60, 30, 120]
    for k, name in enumerate(found.groups):
        assert found.group_all_genes[k] == pytest.approx(np.corrcoef(made[name], real[name])[0, 1])
        top = np.argsort(-abs(real[name]))[:5]
        assert found.group_top_genes[k] == pytest.approx(np.corrcoef(made[name][top], real[name][top])[0, 1])
        others = [np.corrcoef(made[name], real[other])[0, 1] for other in real if other != name]
        assert found.group_rank[k] == np.mean(others > found.group_all_genes[k])
    for mean, each in ((found.all_genes, found.group_all_genes), (found.top_genes, found.group_top_genes)):
        assert mean == pytest.approx(each.mean())


def test_the_truth_is_perfect_and_sparse_counts_are_the_same():
    x, groups = _screen()
    found = ate(x, groups, sparse.csr_matrix(x), groups)
    assert (found.all_genes, found.top_genes, found.rank) == pytest.approx((1, 1, 0))
    deeper = ate(sparse.csc_matrix(3 * x.astype(np.float32)), groups, x, groups)  # each cell's depth is divided out
    assert deeper.all_genes == pytest.approx(1)


def test_the_average_effect_for_all_has_the_rank_of_chance():
    y, groups = _screen()
    real = _effects(y, groups)
    average = np.mean(list(real.values()), axis=0)
    log = np.log2(1 + 1e4 * y / y.sum(1, keepdims=True))
    control = log[groups == "control"].mean(0)
    found = ate(np.tile(control + average, (3, 1)), NAMES[1:], log, groups, scale="log")
    assert found.rank == pytest.approx(0.5)
    assert found.all_genes > 0.4
    own = ate(np.stack([control, *(control + real[k] for k in NAMES[1:])]), NAMES, log, groups, scale="log")
    assert (own.all_genes, own.rank) == pytest.approx((1, 0))


def test_no_effect_correlates_with_nothing():
    y, groups = _screen()
    log = np.log2(1 + 1e4 * y / y.sum(1, keepdims=True))
    nothing = np.tile(log[groups == "control"].mean(0), (4, 1))
    found = ate(nothing, NAMES, log, groups, scale="log")
    assert (found.all_genes, found.top_genes, found.rank) == (0, 0, 0.5)


def test_predictions_have_a_control_of_their_own_or_the_real_one():
    """What a model gets wrong in every cell alike is forgiven if it predicts control cells as well."""
    (x, groups), (y, of_y) = ((np.log2(1 + x), groups) for x, groups in (_screen(1), _screen(2)))
    wrong = x + np.random.default_rng(0).normal(size=x.shape[1])
    perturbed = groups != "control"
    right, both, alone = (
        ate(x, of_x, y, of_y, scale="log").all_genes
        for x, of_x in ((x, groups), (wrong, groups), (wrong[perturbed], groups[perturbed]))
    )
    assert both == pytest.approx(right)
    assert alone < right - 0.1


def test_empty_cells_and_single_perturbations():
    x, groups = _screen()
    x[0] = 0
    kept = np.isin(groups, ["control", "B"])
    found = ate(x[kept], groups[kept], x[kept], groups[kept])
    assert found.all_genes == pytest.approx(1)
    assert np.isnan(found.rank)


def test_moments_over_several_chunks():
    rng = np.random.default_rng(3)
    x, codes = 1e4 + rng.normal(size=(2500, 3)), rng.integers(3, size=2500)
    found = moments(x, codes, 4)
    for k in range(3):
        np.testing.assert_allclose(found.mean[k], x[codes == k].mean(0), rtol=1e-12)
        np.testing.assert_allclose(found.var[k], x[codes == k].var(0), rtol=1e-9)
    assert found.n_cells.tolist() == [*np.bincount(codes), 0]
    again = moments(sparse.csr_array(x), codes, 4)
    np.testing.assert_allclose(again.var, found.var)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"control": "none"}, "must hold the control 'none' and perturbations, but has 'A/1', 'B', 'C', 'control'"),
        ({"scale": "raw"}, "'counts', 'log'"),
        ({"top_n": 1}, "`top_n` is 1"),
        ({"predicted": np.ones((3, 29)), "predicted_groups": NAMES[1:]}, "29 genes and `real` has 30"),
        ({"predicted": np.ones((2, 30)), "predicted_groups": NAMES[2:]}, "No cell of 'A/1' was predicted"),
        ({"predicted": -np.ones((3, 30)), "predicted_groups": NAMES[1:]}, "`predicted` has negative"),
        ({"predicted_groups": NAMES}, "`predicted_groups` must have one label for each"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, message):
    x, groups = _screen()
    given = {"predicted": x, "predicted_groups": groups, "real": x, "real_groups": groups, **change}
    with pytest.raises(ValueError, match=message):
        ate(given.pop("predicted"), given.pop("predicted_groups"), given.pop("real"), given.pop("real_groups"), **given)
