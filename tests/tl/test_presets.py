"""`preset="scvi-tools"`: architecture and schedule as scvi-tools 1.4 documents them."""

import json

import numpy as np
import pytest

import scanpy_scvi as sv


@pytest.fixture(scope="module")
def entry(simulated):
    adata = simulated.copy()
    sv.tl.scvi(adata, "batch", preset="scvi-tools", max_epochs=3, progress=False)
    return adata.uns["scvi"]


def test_architecture(entry):
    spec = json.loads(entry["spec"])
    encoder, decoder = spec["encoder"]["options"], spec["decoder"]["options"]
    for network in (encoder, decoder):
        assert (network["n_latent"], network["n_hidden"], network["n_layers"]) == (10, 128, 1)
        assert (network["norm"], network["norm_momentum"]) == ("batch", 0.01)
        assert network["inject_covariates"]
    assert encoder["dropout_rate"] == 0.1
    assert decoder.get("dropout_rate", 0) == 0
    assert not encoder["encode_covariates"]
    assert spec["likelihood"] == {"name": "zinb", "options": {"dispersion": "gene"}}
    assert spec["library"]["name"] == "observed"
    covariates = [name for name in entry["state"] if name.endswith("covariate_weight")]
    assert covariates == ["decoder.mlp.blocks.0.linear.covariate_weight"]


def test_schedule(entry):
    training = entry["training"]
    assert (training["batch_size"], training["learning_rate"], training["adam_eps"]) == (128, 1e-3, 0.01)
    assert (training["weight_decay"], training["validation_size"]) == (1e-6, 0.1)
    assert not training["early_stopping"]
    assert not training["keep_best"]
    assert training["averaging"] == 0
    assert np.all(entry["history"]["learning_rate"] == 1e-3)  # constant from the first step
    # one step an epoch here, and a KL weight of epoch / 400, counted from 0
    np.testing.assert_allclose(entry["history"]["kl_weight"], np.arange(3) / 400)


def test_it_starts_from_noise(entry, simulated):
    biases = entry["state"]["decoder.logits.bias"]
    share = np.log(simulated.X.toarray().sum(0) + 0.5)
    assert abs(np.corrcoef(biases, share)[0, 1]) < 0.5


def test_options_that_are_set_win(adata):
    mine = {"n_latent": 4, "likelihood": "poisson", "batch_size": 60, "kl_warmup": 0.5, "norm": "layer"}
    sv.tl.scvi(adata, "batch", preset="scvi-tools", max_epochs=4, progress=False, **mine)
    training, params = adata.uns["scvi"]["training"], adata.uns["scvi"]["params"]
    assert adata.obsm["X_scvi"].shape[1] == 4
    assert (training["batch_size"], training["kl_warmup"], training["learning_rate"]) == (60, 0.5, 1e-3)
    assert {name: params[name] for name in mine} == mine
    assert params["preset"] == "scvi-tools"
    assert adata.uns["scvi"]["history"]["kl_weight"][-1] == 1
