"""AnnData -> arrays: the same numbers for a fit and for its model, and the user's arrays untouched."""

import numpy as np
import pytest
from fingerprint import fingerprint
from scipy import sparse

from scanpy_scvi.store import ColumnKeys, read
from scanpy_scvi.store.checks import csr_chunks
from scanpy_scvi.store.read import read_like, resolve_mask

COLUMNS = ColumnKeys("batch", "label", ("donor",), ("age",), "true_library")


def table_bits(table):
    counts = fingerprint(dict(enumerate(table.counts)))
    return counts, fingerprint({name: np.asarray(value) for name, value in vars(table).items() if name != "counts"})


def test_counts_totals_and_sizes(adata):
    adata.var["chosen"] = np.arange(adata.n_vars) % 3 > 0
    data = read(adata, COLUMNS, layer=None, mask_var="chosen")
    counts = adata.X[:, adata.var["chosen"].to_numpy()].toarray()
    rows = data.table.counts
    dense = sparse.csr_array((rows.data, rows.indices, rows.indptr), shape=counts.shape).toarray()
    assert np.array_equal(dense, counts)
    np.testing.assert_allclose(np.exp(data.table.log_total), counts.sum(1), rtol=1e-6)
    dims = data.dims
    assert (dims.n_genes, dims.n_batches, dims.n_labels) == (66, 2, 3)
    assert (dims.n_categories, dims.n_continuous) == ((3,), 1)


def test_columns_become_codes_and_standard_scores(adata):
    data = read(adata, COLUMNS, layer=None, mask_var=None)
    table, names = data.table, data.categories
    assert [names.batch[code] for code in table.batch] == adata.obs["batch"].tolist()
    assert [names.labels[code] for code in table.labels] == adata.obs["label"].tolist()
    assert [names.categorical[0][code] for code in table.categorical[:, 0]] == adata.obs["donor"].tolist()
    age = adata.obs["age"].to_numpy()
    np.testing.assert_allclose(table.continuous[:, 0], (age - age.mean()) / age.std(), atol=1e-6)
    shift = table.log_size_factor - np.log(adata.obs["true_library"])
    np.testing.assert_allclose(shift, shift.iloc[0], atol=1e-5)
    assert table.log_size_factor.mean() == pytest.approx(table.log_total.mean(), abs=1e-5)


def test_a_model_reads_what_its_fit_read(adata):
    mask = np.arange(adata.n_vars) % 3 > 0
    data = read(adata, COLUMNS, layer=None, mask_var=mask)
    again = read_like(adata, COLUMNS, data.categories, np.flatnonzero(mask), None)
    assert table_bits(again) == table_bits(data.table)


@pytest.mark.parametrize("genes", [None, np.array([4, 2, 9])])
def test_tidying_up_never_touches_the_users_arrays(genes):
    matrix = sparse.csr_matrix(
        (np.array([1, 0, 2, 3, 4], np.int16), np.array([4, 2, 4, 9, 2]), np.array([0, 3, 5])), shape=(2, 10)
    )
    before = fingerprint(matrix)
    (chunk,) = csr_chunks(matrix, genes)
    assert fingerprint(matrix) == before
    expected = matrix.toarray() if genes is None else matrix.toarray()[:, genes]
    assert np.array_equal(chunk.toarray(), expected)
    assert chunk.has_canonical_format
    assert (chunk.data != 0).all()


@pytest.mark.parametrize("mask_var", ["auto", None])
def test_all_genes_where_nothing_is_selected(mask_var, adata):
    assert resolve_mask(adata, mask_var).all()
