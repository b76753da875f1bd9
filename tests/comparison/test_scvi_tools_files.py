# ruff: noqa: E402
"""Files of scvi-tools read here, and ours opened by scvi-tools: the same numbers, and the same weights."""

import inspect
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

scvi = pytest.importorskip("scvi")

from _peer import all_cells, ask_peer, nll64, train
from _weights import Variant

import scanpy_scvi as sv
from scanpy_scvi.store import load
from scanpy_scvi.store.scvi_tools.archive import read_saved
from scanpy_scvi.store.scvi_tools.options import NORM_MOMENTUM, Options
from scanpy_scvi.tl._presets import PRESETS

RTOL = 1e-5
SMALL = {"n_hidden": 24, "n_latent": 4}
ALL = {
    "labels_key": "label",
    "categorical_covariate_keys": ["donor", "lane"],
    "continuous_covariate_keys": ["age", "depth"],
}
THEIRS = {
    "default": (Variant("zinb"), {}),
    "two layers": (Variant("nb", 2), {"batch_key": "batch"}),
    "latent library": (Variant("nb", 1, "latent", "gene-batch"), {"batch_key": "batch"}),
    "poisson": (Variant("poisson"), {"batch_key": "batch"}),
    "gene-label": (Variant("nb", 1, dispersion="gene-label"), {"batch_key": "batch", "labels_key": "label"}),
    "gene-cell": (Variant("zinb", 2, dispersion="gene-cell"), {"batch_key": "batch"}),
    "layer norm": (Variant("nb", 2, norm="layer"), {"batch_key": "batch"}),
    "no norm": (Variant("nb", norm="none"), {"batch_key": "batch"}),
    "all covariates": (Variant("zinb", 2, encode_covariates=True), {"batch_key": "batch", **ALL}),
    "first layer": (Variant("nb", 3, encode_covariates=True, inject_covariates=False), {"batch_key": "batch", **ALL}),
    "library sees covariates": (Variant("nb", 1, "latent", encode_covariates=True), {"batch_key": "batch", **ALL}),
}
OURS = {
    "default": {},
    "no batch": {"batch_key": None},
    "all covariates": ALL,
    "three layers": {"n_layers": 3, **ALL},
    "one layer": {"n_layers": 1, **ALL},
    "continuous alone": {"batch_key": None, "continuous_covariate_keys": ["age"]},
    "latent library": {"library": "latent", "likelihood": "zinb", "dispersion": "gene-batch", **ALL},
    "gene-cell": {"likelihood": "zinb", "dispersion": "gene-cell", "continuous_covariate_keys": ["age"]},
    "gene-label": {"dispersion": "gene-label", "labels_key": "label"},
    "poisson": {"likelihood": "poisson"},
    "no norm": {"norm": "none", **ALL},
    "layer norm": {"norm": "layer", "inject_covariates": False, **ALL},
    "first layer": {"inject_covariates": False, **ALL},
    "blind encoder": {"encode_covariates": False, **ALL},
    "their preset": {"preset": "scvi-tools"},
}


@pytest.fixture(scope="module")
def counts():
    """300 cells x 80 genes with columns of every kind; categories that are numbers among them."""
    adata = sv.datasets.simulate(n_cells=300, n_genes=80, n_batches=3, density=0.4)
    rng = np.random.default_rng(0)
    adata.obs["donor"] = rng.choice(["x", "y", "z"], adata.n_obs)
    adata.obs["lane"] = rng.choice([3, 1, 20], adata.n_obs)
    adata.obs["age"] = rng.normal(40, 10, adata.n_obs)
    adata.obs["depth"] = np.log1p(adata.X.sum(1))
    adata.layers["counts"] = adata.X.copy()
    return adata


def quietly(function, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peer's own dependencies
        return function(*args, **options)


def opened(folder, adata=None, **options):
    """Let scvi-tools open a folder."""
    return quietly(scvi.model.SCVI.load, str(folder), adata=adata, accelerator="cpu", **options)


@torch.no_grad()
def assert_same(adata, peer, key="scvi"):
    """Latent moments, normalized expression in every batch, and the terms of the bound."""
    mean, var = quietly(peer.get_latent_representation, return_dist=True)
    np.testing.assert_allclose(adata.obsm[f"X_{key}"], mean, rtol=RTOL, atol=RTOL * mean.std())
    np.testing.assert_allclose(adata.obsm[f"{key}_latent_var"], var, rtol=RTOL)
    fitted = load(adata, key)
    cells = fitted.read(adata).take(np.arange(adata.n_obs))
    posterior = fitted.model.encode(cells)
    tensors = all_cells(peer)
    for batch, name in enumerate(fitted.categories.batch):
        given = {"transform_batch": None if name == "" else [name]}
        rho = quietly(peer.get_normalized_expression, return_numpy=True, **given)
        moved = replace(cells, batch=torch.full_like(cells.batch, batch))
        ours = fitted.model.likelihood.proportions(fitted.model.decode(posterior.mean, moved))
        np.testing.assert_allclose(ours, rho, rtol=2 * RTOL)  # each within 1e-5 of the truth
    theirs = ask_peer(peer.module, tensors, peer.module.gene_likelihood)
    library = fitted.model.library
    nll = fitted.model.likelihood.nll(fitted.model.decode(posterior.mean, cells), library.mean(cells), cells)
    exact = nll64(theirs, tensors["X"], eps=1e-300)  # their formula without its float32 and its 1e-8 in logarithms
    np.testing.assert_allclose(nll, exact, rtol=RTOL)
    np.testing.assert_allclose(fitted.model.prior.kl(posterior, posterior.mean, cells), theirs.kl, rtol=RTOL, atol=RTOL)
    np.testing.assert_allclose(library(cells).kl, theirs.kl_library, rtol=RTOL, atol=RTOL)


@pytest.mark.parametrize("name", THEIRS)
def test_their_file_here(counts, name, tmp_path, posterior_mean):
    """With genes in another order and further ones, and back again: the same weights."""
    variant, columns = THEIRS[name]
    peer = train(counts.copy(), replace(variant, **SMALL), max_epochs=2, layer="counts", **columns)
    peer.save(str(tmp_path / "theirs"))
    adata = counts[:, ::-1].copy()
    sv.tl.from_scvi_tools(adata, tmp_path / "theirs")
    assert_same(adata, peer)
    sv.tl.to_scvi_tools(adata, tmp_path / "ours")
    before, after = (read_saved(tmp_path / side / "model.pt").state for side in ("theirs", "ours"))
    used = {k for k, v in after.items() if np.any(v != 0) and not k.endswith("l_encoder.running_var")}
    assert set(before) == set(after)
    for weight in used - {k for k in after if k.startswith("l_encoder") and variant.library == "observed"}:
        np.testing.assert_array_equal(before[weight], after[weight], err_msg=weight)
    assert_same(adata, opened(tmp_path / "ours", adata[:, peer.adata.var_names].copy()))


@pytest.mark.parametrize("name", OURS)
def test_our_file_there(counts, name, tmp_path, posterior_mean):
    """And read again here: the same latent space."""
    adata = counts.copy()
    given = {"batch_key": "batch", "layer": "counts", **SMALL, **OURS[name]}
    sv.tl.scvi(adata, max_epochs=4, progress=False, normalized=False, **given)
    sv.tl.to_scvi_tools(adata, tmp_path, save_anndata=True)
    assert_same(adata, opened(tmp_path))
    sv.tl.from_scvi_tools(adata, tmp_path, key_added="again")
    scale = RTOL * adata.obsm["X_scvi"].std()
    np.testing.assert_allclose(adata.obsm["X_again"], adata.obsm["X_scvi"], rtol=RTOL, atol=scale)


def test_genes_that_are_not_modelled_and_a_prefix(counts, tmp_path, posterior_mean):
    adata = counts.copy()
    adata.var["highly_variable"] = np.arange(adata.n_vars) % 3 > 0
    sv.tl.scvi(adata, "batch", max_epochs=2, progress=False, **SMALL)
    sv.tl.to_scvi_tools(adata, tmp_path, prefix="mine_")
    cells = adata[:, list(adata.uns["scvi"]["var_names"])].copy()
    assert_same(adata, opened(tmp_path, cells, prefix="mine_"))


def test_a_written_model_can_be_trained_further(counts, tmp_path):
    adata = counts.copy()
    sv.tl.scvi(adata, "batch", max_epochs=2, progress=False, **SMALL)
    sv.tl.to_scvi_tools(adata, tmp_path, save_anndata=True)
    peer = opened(tmp_path)
    before = quietly(peer.get_elbo).item()
    quietly(peer.train, 3, accelerator="cpu", enable_progress_bar=False, logger=False)
    assert np.isfinite(quietly(peer.get_elbo).item())
    assert np.isfinite(before)


def test_the_history_and_the_functions_that_follow(counts, tmp_path):
    adata = counts.copy()
    quietly(scvi.model.SCVI.setup_anndata, adata, batch_key="batch")
    peer = quietly(scvi.model.SCVI, adata, **SMALL)
    quietly(peer.train, 4, accelerator="cpu", enable_progress_bar=False, check_val_every_n_epoch=2)
    peer.save(str(tmp_path), overwrite=True)
    sv.tl.from_scvi_tools(counts_only := counts.copy(), tmp_path)
    table = sv.get.history(counts_only)
    np.testing.assert_allclose(table["train_elbo"], -peer.history["elbo_train"]["elbo_train"].astype(float))
    validation = -peer.history["elbo_validation"]["elbo_validation"].astype(float)
    np.testing.assert_allclose(table["validation_elbo"].dropna(), validation)
    assert len(validation) == 2


def test_the_defaults_of_the_options_are_theirs():
    """An option that a file leaves out has their default."""
    model, module = (inspect.signature(c).parameters for c in (scvi.model.SCVI.__init__, scvi.module.VAE.__init__))
    for name, value in Options().__dict__.items():
        assert (model if name in model else module)[name].default == value
    assert PRESETS["scvi-tools"]["norm_momentum"] == NORM_MOMENTUM
