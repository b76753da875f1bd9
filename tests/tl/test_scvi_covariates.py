"""Which columns, layers and genes a fit reads, and that scales and names do not matter."""

import json

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from fingerprint import fingerprint

import scanpy_scvi as sv

RESULTS = (("obsm", "X_scvi"), ("layers", "scvi_normalized"), ("var", "scvi_dispersion"))


def arrays(adata):
    return [np.asarray(getattr(adata, slot)[key]) for slot, key in RESULTS]


def assert_same_bits(adata, other):
    assert [fingerprint(a) for a in arrays(adata)] == [fingerprint(a) for a in arrays(other)]


def assert_nearly_same(adata, other):
    for a, b in zip(arrays(adata), arrays(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)


def assert_differ(adata, other):
    assert not np.allclose(adata.obsm["X_scvi"], other.obsm["X_scvi"], rtol=1e-3, atol=1e-3)


@pytest.fixture
def pair(adata):
    return adata, adata.copy()


def test_size_factors_of_any_scale(pair, quick_fit):
    adata, other = pair
    adata.obs["factor"] = 0.5 + np.arange(adata.n_obs) % 7
    other.obs["factor"] = 1000 * adata.obs["factor"]
    for each in pair:
        quick_fit(each, size_factor_key="factor")
    assert_nearly_same(adata, other)
    assert json.loads(adata.uns["scvi"]["spec"])["library"]["name"] == "size_factor"


def test_totals_as_size_factors_are_the_observed_library(pair, quick_fit):
    adata, other = pair
    adata.obs["total"] = adata.X.toarray().sum(1)
    quick_fit(adata, size_factor_key="total")
    quick_fit(other)
    assert_nearly_same(adata, other)


def test_size_factors_that_differ_from_totals_matter(pair, quick_fit):
    adata, other = pair
    adata.obs["factor"] = 0.5 + np.arange(adata.n_obs) % 7
    quick_fit(adata, size_factor_key="factor")
    quick_fit(other)
    assert_differ(adata, other)


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "Float64", "bool"])
def test_continuous_covariates_of_any_type(dtype, pair, quick_fit):
    adata, other = pair
    values = (np.arange(adata.n_obs) % 2).astype(float)
    adata.obs["value"], other.obs["value"] = values, pd.array(values, dtype="float64").astype(dtype)
    for each in pair:
        quick_fit(each, continuous_covariate_keys=["value"])
    assert_nearly_same(adata, other)


@pytest.mark.parametrize("encode", [False, True])
def test_shift_and_scale_of_continuous_covariates_do_not_matter(encode, pair, quick_fit):
    adata, other = pair
    other.obs["age"] = 365.25 * adata.obs["age"] - 1e4
    for each in pair:
        quick_fit(each, continuous_covariate_keys=["age"], encode_covariates=encode)
    assert_nearly_same(adata, other)
    stored = adata.uns["scvi"]["categories"]
    assert stored["continuous_mean"] == pytest.approx(adata.obs["age"].mean())
    assert stored["continuous_sd"] == pytest.approx(adata.obs["age"].std(ddof=0))


def test_continuous_covariates_matter(pair, quick_fit):
    adata, other = pair
    quick_fit(adata, continuous_covariate_keys=["age"])
    quick_fit(other)
    assert_differ(adata, other)


def test_names_of_categories_do_not_matter(pair, quick_fit):
    adata, other = pair
    other.obs["donor"] = pd.Categorical(adata.obs["donor"]).rename_categories(["x y", "b/c", "1"])
    for each in pair:
        quick_fit(each, categorical_covariate_keys=["donor"])
    assert_same_bits(adata, other)
    assert other.uns["scvi"]["categories"]["categorical"]["0"].tolist() == ["x y", "b/c", "1"]


def test_categorical_covariates_matter(pair, quick_fit):
    adata, other = pair
    quick_fit(adata, categorical_covariate_keys=["donor"])
    quick_fit(other)
    assert_differ(adata, other)


def test_several_covariates_at_once(adata, quick_fit):
    adata.obs["depth"] = np.log(adata.X.toarray().sum(1))
    quick_fit(adata, categorical_covariate_keys=["donor", "label"], continuous_covariate_keys=("age", "depth"))
    dims = json.loads(adata.uns["scvi"]["spec"])["dims"]
    assert (dims["n_batches"], dims["n_categories"], dims["n_continuous"]) == (2, [3, 3], 2)
    assert adata.uns["scvi"]["state"]["decoder.mlp.blocks.0.linear.covariate_weight"].shape[1] == 2 + 3 + 3 + 2


def test_none_means_no_covariates(pair, quick_fit):
    adata, other = pair
    quick_fit(adata, categorical_covariate_keys=None, continuous_covariate_keys=None)
    quick_fit(other)
    assert_same_bits(adata, other)
    assert sv.tl.normalized_expression(adata, inplace=False).shape == adata.shape


def test_labels_are_read_for_the_dispersion_alone(pair, quick_fit):
    adata, other = pair
    quick_fit(adata, labels_key="label")
    quick_fit(other)
    assert_same_bits(adata, other)
    quick_fit(adata, labels_key="label", dispersion="gene-label")
    assert adata.varm["scvi_dispersion"].shape == (adata.n_vars, 3)
    assert adata.uns["scvi"]["categories"]["labels"].tolist() == ["label_0", "label_1", "label_2"]


def test_counts_in_a_layer(pair, quick_fit):
    adata, other = pair
    other.layers["counts"] = adata.X.copy()
    sc.pp.normalize_total(other)
    sc.pp.log1p(other)
    quick_fit(adata)
    quick_fit(other, layer="counts")
    assert_same_bits(adata, other)


def test_highly_variable_genes_are_modelled_by_default(pair, quick_fit):
    adata, other = pair
    chosen = np.arange(adata.n_vars) % 3 > 0
    adata.var["highly_variable"] = chosen
    quick_fit(adata)
    assert adata.var["scvi_modelled"].tolist() == chosen.tolist()
    assert np.isnan(adata.layers["scvi_normalized"][:, ~chosen]).all()
    np.testing.assert_allclose(adata.layers["scvi_normalized"][:, chosen].sum(1), 1e4, rtol=1e-3)
    assert adata.var["scvi_dispersion"].notna().tolist() == chosen.tolist()
    assert adata.uns["scvi"]["var_names"].tolist() == adata.var_names[chosen].tolist()
    quick_fit(other)
    assert other.var["scvi_modelled"].all()


@pytest.mark.parametrize("kind", ["array", "list", "Series", "column"])
def test_masks_of_any_kind(kind, pair, quick_fit):
    adata, other = pair
    chosen = np.arange(adata.n_vars) % 3 > 0
    adata.var["highly_variable"] = chosen
    other.var["highly_variable"] = ~chosen
    other.var["mine"] = chosen
    mask = {"array": chosen, "list": chosen.tolist(), "Series": other.var["mine"], "column": "mine"}[kind]
    quick_fit(adata)
    quick_fit(other, mask_var=mask)
    assert_same_bits(adata, other)


def test_no_mask_models_all_genes(pair, quick_fit):
    adata, other = pair
    adata.var["highly_variable"] = np.arange(adata.n_vars) % 3 > 0
    quick_fit(adata, mask_var=None)
    quick_fit(other)
    assert_same_bits(adata, other)


def test_a_mask_is_the_same_as_a_subset_of_the_genes(adata, quick_fit):
    chosen = np.arange(adata.n_vars) % 3 > 0
    subset = adata[:, chosen].copy()
    quick_fit(adata, mask_var=chosen)
    quick_fit(subset)
    assert np.array_equal(adata.obsm["X_scvi"], subset.obsm["X_scvi"])
    assert np.array_equal(adata.layers["scvi_normalized"][:, chosen], subset.layers["scvi_normalized"])


def test_normalized_expression_averages_batches_by_their_cells(adata, quick_fit):
    adata = adata[(adata.obs["batch"] == "batch_0") | (np.arange(adata.n_obs) % 3 == 0)].copy()
    quick_fit(adata)
    share = adata.obs["batch"].value_counts(normalize=True)
    assert share["batch_0"] > 0.6
    parts = [
        share[name] * sv.tl.normalized_expression(adata, transform_batch=name, inplace=False)
        for name in ("batch_0", "batch_1")
    ]
    np.testing.assert_allclose(adata.layers["scvi_normalized"], sum(parts), rtol=1e-4)
