"""R² of responses, against SciPy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import pearsonr, ttest_ind
from sklearn.metrics import r2_score

from scanpy_scvi.metrics import response_r2


def _sets(seed=0, n_genes=80):
    rng = np.random.default_rng(seed)
    base = rng.gamma(1, 1, n_genes)
    shift = np.r_[rng.normal(0, 1, 20), np.zeros(n_genes - 20)]
    sizes, sds = (70, 50, 60), rng.uniform(0.1, 0.5, n_genes)
    means = (base + 0.8 * shift, base + shift, base)
    return [rng.normal(mean, sds, (n, n_genes)) for mean, n in zip(means, sizes, strict=True)]


def test_scores_are_those_of_scipy_and_scikit_learn():
    predicted, real, control = _sets()
    found = response_r2(predicted, real, control, top_n=15)
    p, r, c = (x.mean(0) for x in (predicted, real, control))
    top = np.argsort(-abs(ttest_ind(real, control, equal_var=False).statistic))[:15]
    assert found.top_genes.tolist() == top.tolist()
    assert {np.sign((r - c)[g]) for g in top} == {-1, 1}  # both up and down
    for scores, guess, truth in (
        (found.mean, p, r),
        (found.mean_top, p[top], r[top]),
        (found.difference, p - c, r - c),
        (found.difference_top, (p - c)[top], (r - c)[top]),
    ):
        assert scores.correlation == pytest.approx(pearsonr(guess, truth).statistic ** 2)
        assert scores.determination == pytest.approx(r2_score(truth, guess))
    for x, y in zip(found, response_r2(*map(sparse.csr_matrix, (predicted, real, control)), top_n=15), strict=True):
        np.testing.assert_allclose(x, y)


def test_the_truth_is_perfect():
    _, real, control = _sets()
    found = response_r2(real, real, control)
    for scores in found[:4]:
        assert tuple(scores) == pytest.approx((1, 1))
    assert len(found.top_genes) == 80  # of 100


def test_the_prediction_does_not_choose_the_genes():
    predicted, real, control = _sets()
    one, other = (response_r2(x, real, control, top_n=10).top_genes for x in (predicted, 5 * predicted[::-1] ** 2))
    assert one.tolist() == other.tolist()


def test_squared_correlation_forgives_scale_and_offset_and_determination_does_not():
    _, real, control = _sets()
    found = response_r2(7 - 2 * real, real, control)
    assert found.mean.correlation == pytest.approx(1)  # not even the sign counts
    assert found.mean.determination < -1


def test_no_effect_looks_well_until_the_difference_is_taken():
    _, real, control = _sets()
    found = response_r2(control, real, control, top_n=10)
    assert found.mean.correlation > 0.6
    assert found.difference.correlation == 0
    assert found.difference.determination <= 0
    # its residuals are all of the response: sum of squares of d over that of its deviations
    d = real.mean(0) - control.mean(0)
    assert found.difference.determination == pytest.approx(1 - (d**2).sum() / ((d - d.mean()) ** 2).sum())


def test_single_rows_are_means_and_genes_are_then_chosen_by_size():
    predicted, real, control = _sets()
    found = response_r2(predicted.mean(0)[None], real.mean(0)[None], control, top_n=5)
    assert found.top_genes.tolist() == np.argsort(-abs(real.mean(0) - control.mean(0)))[:5].tolist()
    assert found.mean.correlation == pytest.approx(response_r2(predicted, real, control).mean.correlation)


def test_genes_of_ones_own():
    predicted, real, control = _sets()
    mask = np.arange(80) % 7 == 0
    found = response_r2(predicted, real, control, genes=mask)
    assert found.top_genes.tolist() == np.flatnonzero(mask).tolist()
    again = response_r2(predicted, real, control, genes=np.flatnonzero(mask))
    assert again.mean_top == found.mean_top


def test_genes_without_variance_are_no_warning():
    """Silent genes never lead; one that is constant and yet differs does, since nothing makes it uncertain."""
    predicted, real, control = _sets()
    for x in (predicted, real, control):
        x[:, 70:] = 0
    real[:, 75] = 0.25
    found = response_r2(predicted, real, control, top_n=3)
    assert found.top_genes[0] == 75
    silent = response_r2(predicted, real, control, genes=[71, 72])
    assert silent.mean_top.correlation == 0
    assert np.isnan(silent.mean_top.determination)


@pytest.mark.parametrize(
    ("genes", "message"),
    [(np.zeros(3, bool), "mask or different"), ([0, 0], "different"), ([0, 80], "of the 80"), ([0.5, 1], "positions")],
)
def test_genes_that_do_not_fit_are_refused(genes, message):
    with pytest.raises(ValueError, match=message):
        response_r2(*_sets(), genes=genes)


def test_other_genes_are_refused():
    predicted, real, control = _sets()
    with pytest.raises(ValueError, match="have 80, 79, 80"):
        response_r2(predicted, real[:, 1:], control)
    with pytest.raises(ValueError, match="`real` has non-finite"):
        response_r2(predicted, real * np.nan, control)
    with pytest.raises(ValueError, match="`top_n` is 1"):
        response_r2(predicted, real, control, top_n=1)
