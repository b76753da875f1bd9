import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from scanpy_scvi.numerics.count_product import log1p_product, log1p_product_gradient
from scanpy_scvi.numerics.sparse import slice_rows, take_rows
from scanpy_scvi.numerics.team import team_of


def minibatch(n_cells, n_genes, density, seed=0):
    rng = np.random.default_rng(seed)
    x = csr_array(rng.poisson(3, (n_cells, n_genes)) * (rng.random((n_cells, n_genes)) < density))
    return take_rows(x.indptr, x.indices, x.data, np.arange(n_cells)), rng


@settings(max_examples=40, deadline=None)
@given(
    n_cells=st.integers(1, 20),
    n_genes=st.integers(1, 60),
    width=st.integers(1, 40),
    density=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    seed=st.integers(0, 99),
)
def test_equals_the_dense_product_and_its_gradient(n_cells, n_genes, width, density, seed):
    rows, rng = minibatch(n_cells, n_genes, density, seed)
    dense = reference.dense(rows, n_genes, log1p=True)
    matrix = rng.normal(size=(n_genes, width)).astype(np.float32)
    slope = rng.normal(size=(n_cells, width)).astype(np.float32)
    np.testing.assert_allclose(log1p_product(rows, matrix), dense @ matrix, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log1p_product_gradient(rows, slope, n_genes), dense.T @ slope, rtol=1e-4, atol=1e-5)


def test_the_order_of_genes_in_a_row_does_not_matter():
    rows, rng = minibatch(6, 50, 0.4)
    matrix = rng.normal(size=(50, 8)).astype(np.float32)
    shuffled = rows._replace(indices=rows.indices.copy(), data=rows.data.copy())
    for a, b in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        order = rng.permutation(b - a)
        shuffled.indices[a:b], shuffled.data[a:b] = rows.indices[a:b][order], rows.data[a:b][order]
    np.testing.assert_allclose(log1p_product(shuffled, matrix), log1p_product(rows, matrix), rtol=1e-5, atol=1e-6)


def test_a_team_gives_the_same_bits():
    rows, rng = minibatch(64, 4000, 0.3)
    matrix, slope = (rng.normal(size=(n, 256)).astype(np.float32) for n in (4000, 64))
    alone = log1p_product(rows, matrix), log1p_product_gradient(rows, slope, 4000)
    with team_of(3):
        together = log1p_product(rows, matrix), log1p_product_gradient(rows, slope, 4000)
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_slices_of_rows_are_the_rows():
    rows, _ = minibatch(9, 30, 0.3)
    np.testing.assert_array_equal(reference.dense(slice_rows(rows, 2, 7), 30), reference.dense(rows, 30)[2:7])


def test_what_does_not_fit_is_refused():
    rows, _ = minibatch(3, 20, 0.5)
    with pytest.raises(ValueError, match="with 19 genes"):
        log1p_product(rows._replace(indices=rows.indices * 0 + 19), np.ones((19, 2), np.float32))
    with pytest.raises(ValueError, match="C-contiguous float32"):
        log1p_product(rows, np.ones((20, 2)))
    with pytest.raises(ValueError, match="column -20; with"):
        log1p_product(rows._replace(indices=rows.indices - 20), np.ones((20, 2), np.float32))
    with pytest.raises(ValueError, match="`slope` has 4 rows"):
        log1p_product_gradient(rows, np.ones((4, 2), np.float32), 20)
    with pytest.raises(ValueError, match="with 5 genes"):
        log1p_product_gradient(rows._replace(indices=rows.indices * 0 + 5), np.ones((3, 2), np.float32), 5)
