"""The prior of a latent library, read off the data (U8)."""

import numpy as np
import pytest
from modules.small_models import table

from scanpy_scvi.modules.libraries.lognormal import VAR_FLOOR
from scanpy_scvi.tl._assemble import library_prior


def test_mean_and_variance_of_log_totals_per_batch():
    log_total = np.log(np.array([10, 20, 40, 100, 400.0], np.float32))
    mean, var = library_prior(log_total, np.array([0, 0, 0, 1, 1]))
    np.testing.assert_allclose(mean, [np.log(20), np.log(200)], rtol=1e-6)
    # Divisor n: the mean of log(2)² twice and zero once; log(2)² for two cells at ± log 2.
    np.testing.assert_allclose(var, [np.log(2) ** 2 * 2 / 3, np.log(2) ** 2], rtol=1e-6)


def test_order_of_cells_does_not_matter():
    data = table(200)
    order = np.random.default_rng(0).permutation(200)
    a = library_prior(data.log_total, data.batch)
    b = library_prior(data.log_total[order], data.batch[order])
    np.testing.assert_allclose(a, b, rtol=1e-12)


def test_a_batch_of_one_cell_gets_the_floor():
    mean, var = library_prior(np.array([3.0, 4.0, 5.0], np.float32), np.array([0, 0, 1]))
    assert mean == pytest.approx([3.5, 5.0])
    assert var == pytest.approx([0.25, VAR_FLOOR])


def test_numbers_are_plain_so_that_a_spec_can_hold_them():
    data = table(30)
    assert {type(v) for values in library_prior(data.log_total, data.batch) for v in values} == {float}
