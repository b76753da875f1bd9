import numpy as np
import torch
from modules.small_models import DIMS, all_cells, table, table_of

from scanpy_scvi.modules import Dimensions
from scanpy_scvi.modules.cells import covariate_design


def test_covariate_design_is_one_hot_batch_then_categories_then_continuous():
    data = table(12)
    cells = all_cells(data)
    expected = np.zeros((12, 3 + 4 + 2), np.float32)  # the covariate with one category adds nothing
    for i in range(12):
        expected[i, data.batch[i]] = 1
        expected[i, 3 + data.categorical[i, 0]] = 1
        expected[i, 7:] = data.continuous[i]
    np.testing.assert_array_equal(covariate_design(cells, DIMS), expected)
    assert DIMS.n_covariates == expected.shape[1]


def test_design_without_covariates_has_no_columns():
    dims = Dimensions(n_genes=4, n_batches=1, n_categories=(1, 1))
    cells = all_cells(table_of(np.ones((5, 4)), dims))
    assert covariate_design(cells, dims).shape == (5, 0)
    assert dims.n_covariates == 0


def test_design_of_a_minibatch_that_lacks_categories_has_the_same_columns():
    data = table(12)
    few = data.take(np.flatnonzero(data.batch == 1)[:2])
    assert covariate_design(few, DIMS).shape == (2, DIMS.n_covariates)
    assert covariate_design(few, DIMS)[:, :3].tolist() == [[0, 1, 0]] * 2


def test_counts_of_a_minibatch():
    rng = np.random.default_rng(0)
    x = rng.poisson(0.4, (9, 7)).astype(np.float32)
    x[4] = 0
    x[0, :2] = 1e4, 3
    x[4, 0] = 1
    counts = table_of(x).take(np.array([4, 0, 8, 0])).counts
    rows = x[[4, 0, 8, 0]]
    np.testing.assert_allclose(counts.log1p(), np.log1p(rows), rtol=1e-6)
    dense = torch.zeros(4, 7)
    dense[counts.cell_of_entry(), counts.indices.long()] = counts.data
    np.testing.assert_array_equal(dense, rows)
    assert counts.rows().data.base is not None  # shared, not copied


def test_to_the_device_it_is_on_is_the_same_object():
    cells = all_cells(table(5))
    assert cells.to(torch.device("cpu")) is cells
    assert cells.n_cells == 5
