"""Every option of the model trains and does what it says."""

import importlib
import json

import numpy as np
import pandas as pd
import pytest

import scanpy_scvi as sv
from scanpy_scvi.posterior import latent_moments
from scanpy_scvi.store import load
from scanpy_scvi.training.device import resolve_device

GRID = [("poisson", "gene", library) for library in ("observed", "latent")]
GRID += [
    (likelihood, dispersion, library)
    for likelihood in ("nb", "zinb")
    for dispersion in ("gene", "gene-batch", "gene-label", "gene-cell")
    for library in ("observed", "latent")
]
SHORT = {"max_epochs": 10, "batch_size": 32, "learning_rate": 0.02}


@pytest.fixture(scope="module")
def rich():
    """Counts that tell enough about a cell for a few epochs to learn from."""
    return sv.datasets.simulate(n_cells=200, n_genes=100, density=0.7)


def spec(adata):
    return json.loads(adata.uns["scvi"]["spec"])


def state(adata):
    return adata.uns["scvi"]["state"]


@pytest.mark.parametrize(("likelihood", "dispersion", "library"), GRID)
def test_every_combination_trains(likelihood, dispersion, library, rich, quick_fit):
    adata = rich.copy()
    options = {"likelihood": likelihood, "dispersion": dispersion, "library": library, "labels_key": "label"}
    quick_fit(adata, **SHORT, **options)
    history = sv.get.history(adata)
    assert np.isfinite(history).all(axis=None)
    assert history["train_elbo"].iloc[-1] > history["train_elbo"].iloc[0] + 0.5
    assert history["validation_elbo"].max() > history["validation_elbo"].iloc[0]
    assert np.isfinite(adata.obsm["X_scvi"]).all()
    assert (adata.obsm["scvi_latent_var"] > 0).all()
    np.testing.assert_allclose(adata.layers["scvi_normalized"].sum(1), 1e4, rtol=1e-3)
    columns = {"gene": 1, "gene-batch": 2, "gene-label": 3, "gene-cell": 0}[dispersion]
    columns = 0 if likelihood == "poisson" else columns
    assert ("scvi_dispersion" in adata.var) == (columns == 1)
    assert ("scvi_dispersion" in adata.varm) == (columns > 1)
    if columns > 1:
        assert adata.varm["scvi_dispersion"].shape == (adata.n_vars, columns)
        assert (adata.varm["scvi_dispersion"] > 0).all()


def test_dispersion_per_batch_is_learned_per_batch(adata, quick_fit):
    quick_fit(adata, **SHORT, dispersion="gene-batch")
    theta = adata.varm["scvi_dispersion"]
    assert not np.allclose(theta[:, 0], theta[:, 1], rtol=1e-3)


def test_a_latent_library_of_a_batch_with_one_cell(adata, quick_fit):
    names = adata.obs["batch"].astype(str).to_numpy()
    names[3] = "alone"
    adata.obs["batch"] = names
    quick_fit(adata, library="latent", dispersion="gene-batch")
    assert np.isfinite(adata.obsm["X_scvi"]).all()
    prior = spec(adata)["library"]["options"]
    alone = adata.uns["scvi"]["categories"]["batch"].tolist().index("alone")
    assert 0 < prior["prior_var"][alone] < min(np.delete(prior["prior_var"], alone))
    assert prior["prior_mean"][alone] == pytest.approx(np.log(adata.X[3].sum()), rel=1e-6)


def test_the_prior_of_a_latent_library_is_that_of_each_batch(adata, quick_fit):
    quick_fit(adata, library="latent")
    log_total = pd.Series(np.log(adata.X.toarray().sum(1)), index=adata.obs_names)
    by_batch = log_total.groupby(adata.obs["batch"], observed=True)
    prior = spec(adata)["library"]["options"]
    np.testing.assert_allclose(prior["prior_mean"], by_batch.mean(), rtol=1e-5)
    np.testing.assert_allclose(prior["prior_var"], by_batch.var(ddof=0), rtol=1e-4)


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_layers_and_widths(n_layers, adata, quick_fit):
    quick_fit(adata, n_layers=n_layers, n_hidden=24, n_latent=5)
    for role in ("encoder", "decoder"):
        blocks = {k.split(".")[3] for k in state(adata) if k.startswith(f"{role}.mlp.blocks.")}
        assert blocks == {str(i) for i in range(n_layers)}
    assert state(adata)["encoder.mean.weight"].shape == (5, 24)
    assert adata.obsm["X_scvi"].shape == (adata.n_obs, 5)


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("dropout_rate", [0, 0.3])
def test_normalisation_and_dropout(norm, dropout_rate, adata, quick_fit):
    quick_fit(adata, **SHORT, norm=norm, dropout_rate=dropout_rate)
    history = sv.get.history(adata)
    assert history["train_elbo"].iloc[-1] > history["train_elbo"].iloc[0]
    assert any("running_mean" in name for name in state(adata)) == (norm == "batch")
    assert spec(adata)["encoder"]["options"]["dropout_rate"] == dropout_rate
    assert spec(adata)["decoder"]["options"].get("dropout_rate", 0) == 0


@pytest.mark.parametrize("encode", [False, True])
def test_covariates_enter_the_encoder_on_request(encode, adata, quick_fit):
    quick_fit(adata, encode_covariates=encode, n_layers=2)
    fitted = load(adata, "scvi")
    moved = adata.copy()
    moved.obs["batch"] = moved.obs["batch"].cat.rename_categories(["batch_1", "batch_0"])
    z = latent_moments(fitted.model, fitted.read(moved), device=resolve_device("cpu")).mean
    assert np.array_equal(z, adata.obsm["X_scvi"]) == (not encode)


@pytest.mark.parametrize("inject", [False, True])
def test_covariates_enter_every_layer_or_the_first_alone(inject, adata, quick_fit):
    quick_fit(adata, inject_covariates=inject, n_layers=2, encode_covariates=False)
    with_covariates = {name for name in state(adata) if name.endswith("covariate_weight")}
    assert "decoder.mlp.blocks.0.linear.covariate_weight" in with_covariates
    assert ("decoder.mlp.blocks.1.linear.covariate_weight" in with_covariates) == inject
    assert not any(name.startswith("encoder") for name in with_covariates)


def test_kl_warmup_is_a_share_of_the_epochs(adata, quick_fit):
    quick_fit(adata, max_epochs=20, kl_warmup=0.5, kl_weight=0.8, batch_size=32, early_stopping=False)
    weights = sv.get.history(adata)["kl_weight"].to_numpy()
    assert np.all(np.diff(weights[:10]) > 0)
    assert weights[9] < 0.8
    assert np.all(weights[10:] == 0.8)


def test_weight_decay_reaches_the_optimiser(adata, quick_fit):
    decayed = adata.copy()
    quick_fit(adata, **SHORT)
    quick_fit(decayed, **SHORT, weight_decay=1.0)
    norms = [np.linalg.norm(state(a)["encoder.mean.weight"]) for a in (adata, decayed)]
    assert norms[1] < 0.9 * norms[0]


def test_cells_are_held_out_and_stopping_is_on_by_default(adata):
    sv.tl.scvi(adata, "batch", n_hidden=16, n_latent=3, batch_size=32, progress=False)
    n_epochs, training = len(sv.get.history(adata)), adata.uns["scvi"]["training"]
    assert training["early_stopping"]
    assert n_epochs < training["max_epochs"]
    assert len(adata.uns["scvi"]["validation_cells"]) == round(training["validation_size"] * adata.n_obs) > 0
    assert sv.get.history(adata)["validation_elbo"].notna().all()


@pytest.mark.parametrize("preset", [None, "scvi-tools"])
def test_the_default_budget_follows_cells_and_minibatches(preset, adata, quick_fit, monkeypatch):
    asked = []

    def budget(*args):
        asked.append(args)
        return 2

    monkeypatch.setattr(importlib.import_module("scanpy_scvi.tl._model"), "default_max_epochs", budget)
    quick_fit(adata, max_epochs=None, batch_size=48, preset=preset)
    assert asked == [(adata.n_obs, 48, preset)]
    assert len(sv.get.history(adata)) == 2


def test_without_held_out_cells(adata, quick_fit):
    quick_fit(adata, validation_size=0, early_stopping=False)
    assert len(adata.uns["scvi"]["validation_cells"]) == 0
    assert sv.get.history(adata)["validation_elbo"].isna().all()
