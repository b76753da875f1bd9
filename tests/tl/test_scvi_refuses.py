"""What `tl.scvi` must refuse, in words that help, without a trace in the user's object."""

from __future__ import annotations

import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from fingerprint import fingerprint
from scipy import sparse

import scanpy_scvi as sv


def refused(adata, error, words, /, batch_key="batch", **options):
    """Fit, expect `error` with all `words` in at most two sentences, and `adata` as it was."""
    before = fingerprint(adata)
    with pytest.raises(error) as caught:
        sv.tl.scvi(adata, batch_key, progress=False, **options)
    message = str(caught.value.args[0])
    assert [w for w in words if w not in message] == [], message
    assert len(re.findall(r"[.?!](?:\s|$)", message)) <= 2, message
    assert message.endswith((".", "?"))
    assert fingerprint(adata) == before


def with_value(value):
    """Return a change of the seventh stored count."""

    def change(adata):
        adata.X.data[6] = value

    return change


def log_normalised(adata):
    adata.X = adata.X.log1p()


def counts_in_layer(adata):
    adata.layers["counts"] = adata.X.copy()
    log_normalised(adata)


def counts_in_raw(adata):
    adata.raw = adata.copy()
    log_normalised(adata)
    del adata.layers["true_rate"]


def dense_nan(adata):
    adata.X = adata.X.toarray()
    adata.X[3, 4] = np.nan


def no_x(adata):
    adata.X = None


def empty_cells(adata):
    adata.X = sparse.csr_matrix(adata.X.toarray() * (~np.isin(np.arange(adata.n_obs), [4, 7]))[:, None])


def empty_in_mask(adata):
    adata.var["highly_variable"] = np.arange(adata.n_vars) < 5
    counts = adata.X.toarray() + 1
    counts[4, :5] = 0
    adata.X = sparse.csr_matrix(counts)


MATRICES = {
    "no counts": (log_normalised, {}, ["`adata.X`", "non-integer", "first: ", "raw counts", "No layer"]),
    "counts in a layer": (counts_in_layer, {}, ["`adata.X`", "non-integer", "`layer='counts'`"]),
    "counts in raw": (counts_in_raw, {}, ["non-integer", "`adata.raw.to_adata()`"]),
    "counts in X": (counts_in_layer, {"layer": "true_rate"}, ["adata.layers['true_rate']", "`layer='counts'`"]),
    "fraction": (with_value(0.375), {}, ["`adata.X`", "non-integer", "0.375", "counts were expected"]),
    "negative": (with_value(-2), {}, ["`adata.X`", "negative", "-2", "counts were expected"]),
    "NaN": (with_value(np.nan), {}, ["`adata.X`", "NaN or infinite", "nan", "counts were expected"]),
    "infinite": (with_value(np.inf), {}, ["`adata.X`", "NaN or infinite", "inf", "counts were expected"]),
    "dense NaN": (dense_nan, {}, ["`adata.X`", "NaN or infinite", "counts were expected"]),
    "no X": (no_x, {}, ["`adata.X` is None", "`layer=`"]),
    "empty cells": (empty_cells, {}, ["2 of 120 cells", "'cell_4', 'cell_7'", "any gene", "sc.pp.filter_cells"]),
    "empty in mask": (empty_in_mask, {}, ["1 of 120 cells", "'cell_4'", "the modelled genes", "`mask_var=None`"]),
}


@pytest.mark.parametrize("case", MATRICES)
def test_matrices(case, adata):
    change, options, words = MATRICES[case]
    change(adata)
    refused(adata, ValueError, words, **options)


def test_the_value_at_fault_is_found_in_a_later_chunk_of_a_file(adata, tmp_path, monkeypatch):
    monkeypatch.setattr("scanpy_scvi.store.checks.CHUNK", 17)
    adata.X.data[-1] = 2.5
    adata.write_h5ad(tmp_path / "a.h5ad")
    refused(ad.read_h5ad(tmp_path / "a.h5ad", backed="r"), ValueError, ["`adata.X`", "non-integer", "2.5"])


@pytest.mark.parametrize("dtype", [object, complex])
def test_matrices_of_no_numbers(dtype, adata):
    adata.X = adata.X.toarray().astype(dtype)
    refused(adata, TypeError, ["`adata.X`", f"dtype {np.dtype(dtype)}", "real numbers", "astype('float32')"])


def test_a_view_of_a_file_is_refused_before_the_fit(adata, tmp_path, monkeypatch):
    adata.write_h5ad(tmp_path / "a.h5ad")
    view = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")[:50]
    monkeypatch.setattr("scanpy_scvi.tl._fit.choose", None)
    refused(view, ValueError, ["view of a file", "`adata = adata.to_memory()`"])


MISSING = {
    "batch": ({"batch_key": "Batch"}, ["'Batch'", "`adata.obs`", "`batch_key`", "Did you mean 'batch'?"]),
    "labels": ({"labels_key": "labels"}, ["'labels'", "`adata.obs`", "`labels_key`", "'label'"]),
    "categorical": ({"categorical_covariate_keys": ["donors"]}, ["`categorical_covariate_keys`", "'donor'"]),
    "continuous": ({"continuous_covariate_keys": ["ages"]}, ["`continuous_covariate_keys`", "'age'"]),
    "size factor": ({"size_factor_key": "true_libary"}, ["`size_factor_key`", "'true_library'"]),
    "layer": ({"layer": "rate"}, ["'rate'", "`adata.layers`", "`layer`", "'true_rate'"]),
    "mask": ({"mask_var": "true_disp"}, ["'true_disp'", "`adata.var`", "`mask_var`", "'true_dispersion'"]),
    "nothing near": ({"batch_key": "xyz"}, ["'xyz'", "It has 'batch', 'label'"]),
}


@pytest.mark.parametrize("case", MISSING)
def test_missing_keys_name_near_ones(case, adata):
    options, words = MISSING[case]
    refused(adata, KeyError, words, **options)


CATEGORICAL = {
    "batch_key": {"batch_key": "bad"},
    "labels_key": {"labels_key": "bad"},
    "categorical_covariate_keys": {"categorical_covariate_keys": ["donor", "bad"]},
}
NUMERIC = {
    "continuous_covariate_keys": {"continuous_covariate_keys": ["age", "bad"]},
    "size_factor_key": {"size_factor_key": "bad"},
}


@pytest.mark.parametrize("argument", CATEGORICAL)
@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_missing_categories(argument, missing, adata):
    adata.obs["bad"] = pd.Categorical([missing if i in (5, 9) else "ab"[i % 2] for i in range(adata.n_obs)])
    words = ["`adata.obs['bad']`", "2 missing values", "'cell_5'", f"`{argument}`", "fillna"]
    refused(adata, ValueError, words, **CATEGORICAL[argument])


@pytest.mark.parametrize("argument", NUMERIC)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_missing_numbers(argument, value, adata):
    adata.obs["bad"] = np.where(np.arange(adata.n_obs) == 5, value, 1.0 + np.arange(adata.n_obs))
    words = ["`adata.obs['bad']`", "1 NaN or infinite", "'cell_5'", f"`{argument}`", "remove the cells"]
    refused(adata, ValueError, words, **NUMERIC[argument])


@pytest.mark.parametrize("argument", NUMERIC)
def test_text_where_numbers_are_expected(argument, adata):
    adata.obs["bad"] = adata.obs["age"].astype(str).to_numpy(object)
    refused(adata, TypeError, ["`adata.obs['bad']`", "dtype object", f"`{argument}`", "numbers"], **NUMERIC[argument])


def test_constant_covariates(adata):
    adata.obs["one"], adata.obs["same"] = "donor", 3.5
    words = ["`adata.obs['one']`", "single category 'donor'", "at least two", "Leave it out"]
    refused(adata, ValueError, words, categorical_covariate_keys=["donor", "one"])
    words = ["`adata.obs['same']`", "3.5 in every cell", "must vary", "Leave it out"]
    refused(adata, ValueError, words, continuous_covariate_keys=["same"])


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_size_factors_must_be_positive(value, adata):
    adata.obs["bad"] = np.where(np.arange(adata.n_obs) == 5, value, 1.0)
    refused(adata, ValueError, ["1 values", "zero or negative", "'cell_5'", "positive"], size_factor_key="bad")


@pytest.mark.parametrize("view", [False, True])
def test_too_few_cells(view, adata):
    few = adata[:9] if view else adata[:9].copy()
    refused(few, ValueError, ["9 cells", "at least 10"])


def test_more_latent_dimensions_than_genes(adata):
    words = ["`n_latent` is 101", "100 genes", "at most 100"]
    refused(adata, ValueError, words, n_latent=101)
    adata.var["few"] = np.arange(100) < 30
    refused(adata, ValueError, ["`n_latent` is 31", "30 genes"], n_latent=31, mask_var="few")


def test_names_of_genes_must_differ(adata):
    adata.var_names = ["gene_1", *adata.var_names[1:]]
    words = ["`adata.var_names`", "duplicates", "'gene_1'", "matched by name", "`adata.var_names_make_unique()`"]
    refused(adata, ValueError, words)


MASKS = {
    "wrong length": (np.ones(7, bool), ["shape (7,)", "(100,)", "bool"]),
    "not bool": (np.ones(100), ["float64", "one bool per gene"]),
    "no gene": (np.zeros(100, bool), ["selects no gene", "`mask_var=None`"]),
    "column of numbers": ("true_dispersion", ["float64", "one bool per gene"]),
}


@pytest.mark.parametrize("case", MASKS)
def test_masks(case, adata):
    mask, words = MASKS[case]
    refused(adata, ValueError, ["`mask_var`", *words], mask_var=mask)


CLASHES = {
    "uns": lambda a: a.uns.update(scvi={"params": {}}),
    "obsm": lambda a: a.obsm.update(X_scvi=np.ones((a.n_obs, 2))),
    "layers": lambda a: a.layers.update(scvi_normalized=a.X.copy()),
    "var": lambda a: a.var.insert(0, "scvi_dispersion", 1.0),
    "varm": lambda a: a.varm.update(scvi_dispersion=np.ones((a.n_vars, 2))),
}


@pytest.mark.parametrize("slot", CLASHES)
def test_results_of_another_kind_are_not_overwritten(slot, adata):
    CLASHES[slot](adata)
    words = [f"`adata.{slot}[", "scvi", "`key_added='scvi'`", "overwrite", "another `key_added`"]
    refused(adata, ValueError, words)
    sv.tl.scvi(adata, key_added="other", max_epochs=1, progress=False)
    assert "X_other" in adata.obsm


@pytest.mark.parametrize("key", ["a/b", "", None, 3])
def test_key_added_must_be_a_name_that_files_can_hold(key, adata):
    refused(adata, (ValueError, TypeError), ["`key_added`", repr(key), "'/'"], key_added=key)
