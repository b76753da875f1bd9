"""From `uns` back to a model: genes and categories by name, and clear words where that cannot be."""

from __future__ import annotations

import copy
import json

import numpy as np
import pandas as pd
import pytest
import torch
from fingerprint import fingerprint
from hypothesis import given
from hypothesis import strategies as st

import scanpy_scvi as sv
from scanpy_scvi.posterior import latent_moments
from scanpy_scvi.store import SCHEMA, Categories, load
from scanpy_scvi.store.entry import read_categories
from scanpy_scvi.store.uns import to_uns
from scanpy_scvi.store.write import categories_entry

COVARIATES = {
    "labels_key": "label",
    "dispersion": "gene-label",
    "categorical_covariate_keys": ["donor"],
    "continuous_covariate_keys": ["age"],
    "encode_covariates": True,
}


@pytest.fixture
def covered(adata, quick_fit):
    """A fit that uses every kind of column."""
    quick_fit(adata, **COVARIATES)
    return adata


def latent(adata, key="scvi"):
    """Encode the cells of `adata` with the model in it."""
    fitted = load(adata, key)
    return latent_moments(fitted.model, fitted.read(adata), device=torch.device("cpu")).mean


def expression(adata):
    return sv.tl.normalized_expression(adata, inplace=False)


def test_the_model_is_the_one_that_was_fitted(covered):
    fitted = load(covered, "scvi")
    assert not fitted.model.training
    assert fitted.spec.to_json() == covered.uns["scvi"]["spec"]
    assert fitted.var_names == tuple(covered.var_names)
    for name, tensor in fitted.model.state_dict().items():
        assert np.array_equal(tensor.numpy(), covered.uns["scvi"]["state"][name])
    assert np.array_equal(latent(covered), covered.obsm["X_scvi"])


def test_the_stored_weights_are_copied(covered):
    with torch.no_grad():
        load(covered, "scvi").model.decoder.logits.bias.fill_(7)
    assert not (covered.uns["scvi"]["state"]["decoder.logits.bias"] == 7).any()


def test_genes_are_matched_by_name(covered):
    shuffled = covered[:, np.random.default_rng(0).permutation(covered.n_vars)].copy()
    assert np.array_equal(latent(shuffled), covered.obsm["X_scvi"])
    assert expression(shuffled).equals(expression(covered))


def test_genes_that_the_model_does_not_know_are_ignored(adata, quick_fit):
    chosen = np.arange(adata.n_vars) % 3 > 0
    subset = adata[:, chosen].copy()
    quick_fit(subset)
    adata.uns["scvi"] = subset.uns["scvi"]
    adata.X = adata.X[:, ::-1].copy()
    adata.var_names = adata.var_names[::-1]
    assert np.array_equal(latent(adata), subset.obsm["X_scvi"])
    sv.tl.normalized_expression(adata)
    assert adata[:, subset.var_names].layers["scvi_normalized"].tobytes() == subset.layers["scvi_normalized"].tobytes()
    assert np.isnan(adata[:, ~adata.var_names.isin(subset.var_names)].layers["scvi_normalized"]).all()


def test_missing_genes_are_named(covered):
    few = covered[:, 2:].copy()
    with pytest.raises(KeyError, match=r"2 of the model's 100 genes.*'gene_0', 'gene_1'"):
        load(few, "scvi")


def test_genes_of_the_same_name_are_refused(covered):
    covered.var_names = ["gene_1", *covered.var_names[1:]]
    with pytest.raises(ValueError, match=r"duplicates.*'gene_1'.*var_names_make_unique"):
        load(covered, "scvi")


@pytest.mark.parametrize("column", ["batch", "label", "donor"])
@pytest.mark.parametrize("kind", ["reordered", "more categories", "object", "string"])
def test_categories_are_matched_by_name(column, kind, covered):
    expected = expression(covered)
    values = covered.obs[column].astype(str)
    names = sorted(set(values))
    covered.obs[column] = {
        "reordered": lambda: pd.Categorical(values, categories=names[::-1]),
        "more categories": lambda: pd.Categorical(values, categories=["0", *names, "z"]),
        "object": lambda: values.to_numpy(object),
        "string": lambda: pd.array(values, dtype="string"),
    }[kind]()
    assert np.array_equal(latent(covered), covered.obsm["X_scvi"])
    assert expression(covered).equals(expression(covered))
    assert expression(covered).equals(expected)


@pytest.mark.parametrize("select", ["one batch", "one donor", "one age", "one cell"])
def test_some_cells_alone(select, covered):
    keep = {
        "one batch": covered.obs["batch"] == "batch_1",
        "one donor": covered.obs["donor"] == "donor_2",
        "one age": covered.obs["age"] == covered.obs["age"].iloc[0],
        "one cell": np.arange(covered.n_obs) == 5,
    }[select]
    some = covered[np.asarray(keep)].copy()
    np.testing.assert_allclose(latent(some), some.obsm["X_scvi"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(expression(some), some.layers["scvi_normalized"], rtol=1e-3)


@pytest.mark.parametrize(("column", "argument"), [("batch", "batch_key"), ("donor", "categorical_covariate_keys")])
def test_unseen_categories_are_named(column, argument, covered):
    covered.obs[column] = ["new", *covered.obs[column].astype(str)[1:]]
    before = fingerprint(covered)
    with pytest.raises(ValueError, match=rf"`adata.obs\['{column}'\]` has .*'new'.*not seen.*'{column}_0'"):
        sv.tl.normalized_expression(covered)
    assert fingerprint(covered) == before


def test_what_else_new_cells_must_have(covered):
    for column in ("batch", "age"):
        lacking = covered.copy()
        del lacking.obs[column]
        with pytest.raises(KeyError, match=f"'{column}' was not found in `adata.obs`"):
            sv.tl.normalized_expression(lacking)
    covered.obs.loc["cell_3", "age"] = np.nan
    with pytest.raises(ValueError, match=r"'age'.*NaN.*'cell_3'"):
        sv.tl.normalized_expression(covered)


def change(entry, **changes):
    return {**entry, **changes}


def test_no_fit_or_another_key(adata, covered):
    adata = covered.copy()
    del adata.uns["scvi"]
    with pytest.raises(KeyError, match=r"uns\['scvi'\].*no fitted model.*Run `scanpy_scvi.tl.scvi` first"):
        load(adata, "scvi")
    with pytest.raises(KeyError, match=r"uns\['other'\].*no fitted model.*'scvi'.*`key=`"):
        load(covered, "other")
    adata.uns["scvi"] = {"params": {"method": "umap"}}
    with pytest.raises(KeyError, match="no fitted model"):
        load(adata, "scvi")


def test_a_newer_layout(covered):
    covered.uns["scvi"] = change(covered.uns["scvi"], schema=SCHEMA + 1)
    with pytest.raises(ValueError, match=rf"schema {SCHEMA + 1}.*up to {SCHEMA}.*newer scanpy-scvi"):
        load(covered, "scvi")


WEIGHTS = {
    "missing": (lambda s: s.pop("encoder.mean.weight"), "'encoder.mean.weight'"),
    "unknown": (lambda s: s.update({"encoder.extra": np.ones(2)}), "'encoder.extra'"),
    "shape": (lambda s: s.update({"encoder.mean.bias": np.ones(7)}), r"'encoder.mean.bias'.*\(7,\).*\(3,\)"),
    "dimensions": (lambda s: s.update({"encoder.mean.bias": np.ones((3, 1))}), r"'encoder.mean.bias'.*\(3, 1\)"),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_that_do_not_fit(kind, covered):
    spoil, words = WEIGHTS[kind]
    state = dict(covered.uns["scvi"]["state"])
    spoil(state)
    covered.uns["scvi"] = change(covered.uns["scvi"], state=state)
    with pytest.raises(ValueError, match=words):
        load(covered, "scvi")


def spoiled_spec(text, kind):
    spec = json.loads(text)
    if kind == "unknown part":
        spec["prior"]["name"] = "mixture"
    if kind == "unknown option":
        spec["decoder"]["options"]["attention"] = True
    if kind == "missing part":
        del spec["prior"]
    return text[:50] if kind == "torn" else json.dumps(spec)


@pytest.mark.parametrize("kind", ["unknown part", "unknown option", "missing part", "torn"])
def test_a_spec_of_another_version(kind, covered):
    entry = covered.uns["scvi"]
    covered.uns["scvi"] = change(entry, spec=spoiled_spec(entry["spec"], kind))
    with pytest.raises(ValueError, match=r"spec in `adata.uns\['scvi'\]`.*cannot be read.*version"):
        load(covered, "scvi")


@pytest.mark.parametrize("key", ["params", "categories", "var_names"])
def test_an_entry_with_a_hole(key, covered):
    entry = copy.copy(covered.uns["scvi"])
    del entry[key]
    covered.uns["scvi"] = entry
    with pytest.raises(ValueError, match=rf"`adata.uns\['scvi'\]` lacks '{key}'"):
        load(covered, "scvi")


NAMES = st.lists(st.text(min_size=1).filter(str.isprintable), min_size=1, max_size=4, unique=True).map(tuple)


@given(NAMES, NAMES, st.lists(NAMES, max_size=2).map(tuple), st.lists(st.floats(0.1, 9), max_size=2).map(tuple))
def test_categories_come_back_as_they_were(batch, labels, categorical, numbers):
    weights = (1 / len(batch),) * len(batch)
    categories = Categories(batch, labels, categorical, numbers, numbers, 0.25, weights)
    assert read_categories(to_uns(categories_entry(categories))) == categories
