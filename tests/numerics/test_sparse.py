import numpy as np
import pytest
import reference
from scipy.sparse import csr_array, csr_matrix

from scanpy_scvi.numerics.sparse import take_rows, to_dense


@pytest.fixture
def counts():
    rng = np.random.default_rng(0)
    return csr_array(rng.poisson(3, (30, 41)) * (rng.random((30, 41)) < 0.2) * 1.5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64, np.uint16, bool])
@pytest.mark.parametrize("index_dtype", [np.int32, np.int64])
def test_take_rows_equals_scipy_indexing(counts, dtype, index_dtype):
    x = csr_matrix(counts.astype(dtype))
    rows = np.array([7, 0, 7, 29])
    got = take_rows(x.indptr.astype(index_dtype), x.indices.astype(index_dtype), x.data, rows)
    assert [a.dtype for a in got] == [np.int64, np.int32, np.float32]
    expected = x.toarray()[rows].astype(np.float32)
    np.testing.assert_array_equal(to_dense(got, 41), expected)


def test_to_dense_log1p_and_out(counts):
    rows = take_rows(counts.indptr, counts.indices, counts.data, np.arange(30))
    out = np.full((30, 41), 9, np.float32)
    assert to_dense(rows, 41, log1p=True, out=out) is out
    np.testing.assert_allclose(out, reference.dense(rows, 41, log1p=True), rtol=3e-7)
    with pytest.raises(ValueError, match="must be float32"):
        to_dense(rows, 41, out=np.empty((30, 40), np.float32))


def test_take_no_rows_and_empty_rows():
    x = csr_array((4, 5))
    assert to_dense(take_rows(x.indptr, x.indices, x.data, []), 5).shape == (0, 5)


@pytest.mark.parametrize("row", [-1, 30])
def test_rows_outside_raise(counts, row):
    with pytest.raises(IndexError, match="rows 0 to 29"):
        take_rows(counts.indptr, counts.indices, counts.data, [row])
