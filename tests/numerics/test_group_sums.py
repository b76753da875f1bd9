import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from scanpy_scvi.numerics.group_sums import group_sums
from scanpy_scvi.numerics.sparse import CSRRows


@given(st.integers(0, 30), st.integers(1, 8), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_sums_are_those_of_the_dense_matrix(n_cells, n_genes, n_groups, seed):
    rng = np.random.default_rng(seed)
    x = rng.poisson(0.7, (n_cells, n_genes)).astype(np.float32)
    counts = sparse.csr_array(x)
    counts.data[: len(counts.data) // 2] = 0  # stored zeros are no counts
    x, factors = counts.toarray().astype(float), rng.random(n_cells)
    codes = rng.integers(-1, n_groups + 1, n_cells)  # in no group: below and above
    found = group_sums(CSRRows(counts.indptr, counts.indices, counts.data), codes, factors, (n_groups, n_genes))
    scaled = x * factors[:, None]
    for group in range(n_groups):
        inside = codes == group
        logs = np.log1p(scaled)
        for got, values, rtol in zip(
            found, (x, x > 0, scaled, scaled**2, logs, logs**2), (1e-12,) * 4 + (1e-5,) * 2, strict=True
        ):
            np.testing.assert_allclose(got[group], values[inside].sum(0), rtol=rtol)
