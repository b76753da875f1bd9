"""What `tl.scvi` must simply take: every kind of matrix and of column that AnnData can hold, with the same result."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from fingerprint import fingerprint
from scipy import sparse

import scanpy_scvi as sv

RESULTS = (("obsm", "X_scvi"), ("obsm", "scvi_latent_var"), ("layers", "scvi_normalized"), ("var", "scvi_dispersion"))


def results(adata):
    """Every array that a fit writes, and its history."""
    arrays = [getattr(adata, slot)[key] for slot, key in RESULTS]
    return fingerprint(
        {str(i): np.asarray(a) for i, a in enumerate(arrays)} | {"history": adata.uns["scvi"]["history"]}
    )


def scrambled(csr):
    """Return the same counts with columns in reverse order within each row."""
    parts = [np.arange(a, b)[::-1] for a, b in zip(csr.indptr[:-1], csr.indptr[1:], strict=True)]
    order = np.concatenate(parts)
    return sparse.csr_matrix((csr.data[order], csr.indices[order], csr.indptr), shape=csr.shape)


def split_in_two(csr):
    """Return the same counts with every entry x stored as 1 and x - 1 (an explicit zero where x is 1)."""
    data = np.stack([np.ones_like(csr.data), csr.data - 1], axis=1).ravel()
    return sparse.csr_matrix((data, np.repeat(csr.indices, 2), 2 * csr.indptr), shape=csr.shape)


def with_zeros(csr):
    """Return the same counts with all zeros stored."""
    n, g = csr.shape
    columns = np.tile(np.arange(g), n)
    return sparse.csr_matrix((csr.toarray().ravel(), columns, np.arange(0, n * g + 1, g)), shape=csr.shape)


MATRICES = {
    "csr_matrix": sparse.csr_matrix,
    "csr_array": sparse.csr_array,
    "csc_matrix": sparse.csc_matrix,
    "csc_array": sparse.csc_array,
    "dense": lambda csr: csr.toarray(),
    "fortran": lambda csr: np.asfortranarray(csr.toarray()),
    "int64": lambda csr: csr.astype(np.int64),
    "float64": lambda csr: csr.astype(np.float64),
    "uint16": lambda csr: csr.astype(np.uint16),
    "dense int64": lambda csr: csr.toarray().astype(np.int64),
    "unsorted": scrambled,
    "duplicates": split_in_two,
    "explicit zeros": with_zeros,
}


@pytest.fixture(scope="module")
def baseline(fitted):
    return results(fitted)


@pytest.mark.parametrize("kind", MATRICES)
def test_matrix_kinds_give_the_same_bits(kind, adata, quick_fit, baseline):
    matrix = MATRICES[kind](adata.X)
    adata.X = matrix
    before = fingerprint(adata.X)
    quick_fit(adata)
    assert results(adata) == baseline
    assert fingerprint(adata.X) == before


@pytest.mark.parametrize("kind", MATRICES)
def test_matrix_kinds_in_a_layer_under_a_mask(kind, simulated, quick_fit):
    chosen = np.arange(simulated.n_vars) % 3 > 0
    expected = simulated.copy()
    quick_fit(expected, mask_var=chosen)
    adata = simulated.copy()
    adata.layers["counts"] = MATRICES[kind](adata.X)
    adata.X = np.log1p(adata.X.toarray())
    quick_fit(adata, layer="counts", mask_var=chosen)
    assert results(adata) == results(expected)


def test_small_integers_do_not_overflow_where_duplicates_are_summed(simulated, quick_fit):
    counts = simulated.X.toarray()
    counts[0, 0] = 300
    csr = sparse.csr_matrix(counts)
    first_twice = np.r_[200, 100, csr.data[1:]].astype(np.uint8), np.r_[0, csr.indices], np.r_[0, csr.indptr[1:] + 1]
    expected, adata = simulated.copy(), simulated.copy()
    expected.X, adata.X = csr, sparse.csr_matrix(first_twice, shape=csr.shape)
    quick_fit(expected)
    quick_fit(adata)
    assert results(adata) == results(expected)


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
@pytest.mark.parametrize("masked", [False, True])
def test_backed_file_is_read_in_chunks_to_the_same_bits(form, masked, simulated, quick_fit, tmp_path, monkeypatch):
    monkeypatch.setattr("scanpy_scvi.store.checks.CHUNK", 17)
    chosen = np.arange(simulated.n_vars) % 3 > 0 if masked else None
    in_memory = simulated.copy()
    quick_fit(in_memory, mask_var=chosen)
    stored = simulated.copy()
    stored.X = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.asarray}[form](simulated.X.toarray())
    stored.write_h5ad(tmp_path / "counts.h5ad")
    bits = (tmp_path / "counts.h5ad").read_bytes()
    backed = ad.read_h5ad(tmp_path / "counts.h5ad", backed="r")
    quick_fit(backed, mask_var=chosen)
    assert backed.isbacked
    assert results(backed) == results(in_memory)
    again = sv.tl.normalized_expression(backed, inplace=False)
    assert np.array_equal(again, backed.layers["scvi_normalized"][:, backed.var["scvi_modelled"]])
    backed.file.close()
    assert (tmp_path / "counts.h5ad").read_bytes() == bits


def test_view_becomes_an_object_of_its_own_and_its_parent_stays(adata, quick_fit):
    parent = fingerprint(adata)
    view = adata[10:100, ::2]
    assert view.is_view
    expected = view.copy()
    quick_fit(expected)
    quick_fit(view)
    assert not view.is_view
    assert results(view) == results(expected)
    assert fingerprint(adata) == parent


@pytest.mark.parametrize("batch_key", [None, "same"])
def test_one_batch_only(batch_key, adata, quick_fit):
    adata.obs["same"] = pd.Categorical(["all"] * adata.n_obs, categories=["all", "unused"])
    quick_fit(adata, batch_key)
    assert np.isfinite(adata.obsm["X_scvi"]).all()
    values = adata.layers["scvi_normalized"]
    np.testing.assert_allclose(values.sum(1), 1e4, rtol=1e-4)
    if batch_key:
        assert adata.uns["scvi"]["categories"]["batch"].tolist() == ["all"]


def test_one_batch_is_the_same_as_none(adata, quick_fit):
    other = adata.copy()
    other.obs["same"] = "all"
    quick_fit(adata, None)
    quick_fit(other, "same")
    assert results(adata) == results(other)


COLUMNS = {
    "object": lambda codes: np.array(["b", "a"], object)[codes],
    "string": lambda codes: pd.array(np.array(["b", "a"])[codes], dtype="string"),
    "categorical": lambda codes: pd.Categorical.from_codes(codes, ["x", "y"]),
    "ordered": lambda codes: pd.Categorical.from_codes(codes, ["x", "y"], ordered=True),
    "unused categories": lambda codes: pd.Categorical.from_codes(codes + 1, ["none", "x", "y", "nobody"]),
    "integers": lambda codes: codes + 7,
    "bool": lambda codes: codes == 1,
    "categorical integers": lambda codes: pd.Categorical.from_codes(codes, [3, 4]),
}
RENAMED = {"object": ["b", "a"], "string": ["b", "a"]}  # sorted by name, so the codes change places


@pytest.mark.parametrize("kind", COLUMNS)
def test_column_kinds_are_categories(kind, adata, quick_fit, baseline):
    codes = adata.obs["batch"].cat.codes.to_numpy()
    codes = 1 - codes if kind in RENAMED else codes
    adata.obs["batch"] = COLUMNS[kind](codes)
    before = fingerprint(adata.obs)
    quick_fit(adata)
    assert results(adata) == baseline
    assert fingerprint(adata.obs) == before


def test_numpy_scalars_and_lists_as_options(adata, quick_fit):
    quick_fit(adata, n_latent=np.int64(3), learning_rate=np.float32(0.01), categorical_covariate_keys=["donor"])
    assert adata.obsm["X_scvi"].shape == (adata.n_obs, 3)


def test_nothing_but_the_documented_slots_changes(adata, quick_fit):
    adata.uns["mine"] = {"a": np.arange(3)}
    adata.layers["mine"] = adata.X.copy()
    adata.raw = adata.copy()
    before = fingerprint(adata)
    quick_fit(adata)
    for slot, key in (*RESULTS, ("var", "scvi_modelled"), ("uns", "scvi")):
        del getattr(adata, slot)[key]
    assert fingerprint(adata) == before
