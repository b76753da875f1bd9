import numpy as np
import pytest
import torch

from scanpy_scvi.posterior.perturbation_response import counted_means, fold_change, predicted_response
from scanpy_scvi.store.load import load

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def found(fitted):
    model = load(fitted, "scvi")
    return model.model, model.read(fitted), fitted.obsm["X_scvi"]


def test_no_shift_changes_nothing_and_no_error_costs_nothing(found):
    model, table, z = found
    response = predicted_response(model, table, z, np.zeros(3), np.zeros(3), pseudocount=0.1, device=CPU)
    np.testing.assert_array_equal(response.fold, 0)
    np.testing.assert_array_equal(response.error, 0)
    np.testing.assert_allclose(response.before.sum(), 1e4, rtol=1e-5)


def test_a_shift_and_back_is_the_opposite_change(found):
    model, table, z = found
    shift = np.array([0.7, -0.4, 0])
    there = predicted_response(model, table, z, shift, np.zeros(3), pseudocount=0.1, device=CPU)
    moved = (z + shift).astype(np.float32)
    back = predicted_response(model, table, moved, -shift, np.zeros(3), pseudocount=0.1, device=CPU)
    np.testing.assert_allclose(back.fold, -there.fold, atol=1e-4)
    assert np.abs(there.fold).max() > 0.01


def test_errors_add_up_in_squares_and_grow_in_proportion(found):
    model, table, z = found

    def error(*errors):
        return predicted_response(model, table, z, np.ones(3), np.array(errors), pseudocount=0.1, device=CPU).error

    np.testing.assert_allclose(error(0.1, 0.2, 0) ** 2, error(0.1, 0, 0) ** 2 + error(0, 0.2, 0) ** 2, rtol=1e-6)
    both = error(0.05, 0, 0), error(0.1, 0, 0)
    assert np.median(both[1] / both[0]) == pytest.approx(2, rel=0.02)


def test_means_of_counts_and_their_errors_are_those_of_the_cells(found, fitted):
    _, table, _ = found
    codes = np.repeat([0, 1, -1], 40)
    parts = [(table.subset(rows), codes[rows]) for rows in np.array_split(np.arange(120), 7)]
    counted = counted_means(parts, 2)
    x = fitted.X.toarray().astype(float)
    x = 1e4 * x / x.sum(1, keepdims=True)
    for group, rows in enumerate((slice(0, 40), slice(40, 80))):
        np.testing.assert_allclose(counted.mean[group], x[rows].mean(0), rtol=1e-4)
        error = x[rows].std(0, ddof=1) / np.sqrt(40)
        seen = (x[rows] > 0).sum(0) > 3  # of a gene seen once, the error is that of one count
        np.testing.assert_allclose(counted.error[group][seen], error[seen], rtol=1e-3)
    relative = counted.error / (counted.mean + 0.5)
    np.testing.assert_allclose(counted.fold_error(0.5), np.hypot(*relative) / np.log(2))


def test_a_group_of_no_cells_has_no_mean(found):
    _, table, _ = found
    counted = counted_means([(table, np.zeros(table.n_cells, np.int64))], 2)
    assert np.isfinite(counted.mean[0]).all()
    assert np.isnan(counted.mean[1]).all()
    assert np.isnan(counted.fold_error(0.1)).all()


def test_fold_change_of_equal_means_is_zero():
    assert fold_change(np.array([0.0, 3.0]), np.array([0.0, 1.0]), 1.0).tolist() == [0.0, 1.0]
