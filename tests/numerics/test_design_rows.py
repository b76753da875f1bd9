"""Covariates times weights: the product, and bits that do not depend on columns without part in it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanpy_scvi.numerics.design_rows import add_design


def design_of(rng, n, k):
    design = (rng.random((n, k)) < 0.3) * rng.normal(size=(n, k))
    return design.astype(np.float32)


@pytest.mark.parametrize(("n", "k", "width"), [(1, 1, 1), (7, 3, 5), (40, 12, 129), (3, 0, 4), (0, 2, 3)])
def test_is_the_product(n, k, width):
    rng = np.random.default_rng(0)
    out, design = rng.normal(size=(n, width)).astype(np.float32), design_of(rng, n, k)
    offsets = rng.normal(size=(k, width)).astype(np.float32)
    expected = out.astype(float) + design.astype(float) @ offsets.astype(float)
    assert add_design(out, design, offsets) is out
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-6)


@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 9), st.integers(1, 40))
def test_columns_of_zeros_change_no_bit(seed, k, more, width):
    rng = np.random.default_rng(seed)
    out, design = rng.normal(size=(6, width)).astype(np.float32), design_of(rng, 6, k)
    offsets = rng.normal(size=(k, width)).astype(np.float32)
    at = np.sort(rng.choice(k + more, k, replace=False))
    wider, longer = np.zeros((6, k + more), np.float32), rng.normal(size=(k + more, width)).astype(np.float32)
    wider[:, at], longer[at] = design, offsets
    assert np.array_equal(add_design(out.copy(), design, offsets), add_design(out.copy(), wider, longer))
