"""Least squares of rows that come in parts are those of all rows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scanpy_scvi.numerics import least_squares as module
from scanpy_scvi.numerics.least_squares import least_squares, parts_of_rows


@given(n=st.integers(0, 100), rows=st.integers(1, 30))
def test_parts_cover_all_rows_once(n, rows):
    before, module.ROWS = module.ROWS, rows
    try:
        parts = parts_of_rows(n)
    finally:
        module.ROWS = before
    assert np.concatenate([np.arange(n)[part] for part in parts]).tolist() == list(range(n))


@given(seed=st.integers(0, 100), n=st.integers(6, 60), size=st.integers(1, 30))
def test_parts_give_what_all_rows_give(seed, n, size):
    rng = np.random.default_rng(seed)
    design, values = rng.normal(size=(n, 4)), rng.normal(size=n).astype(np.float32)
    expected = np.linalg.lstsq(design, values.astype(np.float64), rcond=None)[0]
    parts = ((design[a : a + size], values[a : a + size]) for a in range(0, n, size))
    np.testing.assert_allclose(least_squares(parts), expected, rtol=1e-8, atol=1e-10)


def test_columns_that_depend_on_each_other_share_the_coefficient():
    x = np.arange(10.0)
    got = least_squares([(np.column_stack([x[:5], x[:5]]), 2 * x[:5]), (np.column_stack([x[5:], x[5:]]), 2 * x[5:])])
    np.testing.assert_allclose(got, [1, 1])
