import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from fingerprint import fingerprint
from questions import ask_everything
from scipy.stats import spearmanr

import scanpy_scvi as sv
from scanpy_scvi.posterior.factors import explained_variance
from scanpy_scvi.store.load import load

QUICK = {"max_epochs": 3, "n_hidden": 16, "n_latent": 3, "progress": False}


@pytest.fixture(scope="module")
def fit(simulated):
    adata = simulated.copy()
    sv.tl.ldvae(adata, "batch", **QUICK)
    return adata


def test_results_lie_in_slots_of_their_own(fit, simulated):
    n, g = simulated.shape
    assert set(fit.obsm) - set(simulated.obsm) == {"X_ldvae", "ldvae_latent_var"}
    assert fit.obsm["X_ldvae"].shape == (n, 3)
    assert fit.varm["ldvae_loadings"].shape == (g, 3)
    assert fit.varm["ldvae_loadings"].dtype == np.float32
    assert set(fit.layers) - set(simulated.layers) == {"ldvae_normalized"}
    assert set(fit.uns) - set(simulated.uns) == {"ldvae"}
    entry = fit.uns["ldvae"]
    assert entry["explained_variance"].shape == entry["explained_variance_ratio"].shape == (3,)


def test_embedding_loadings_and_stored_model_agree(fit):
    """log rho, less its mean over genes, is W z + V s + b with what is stored, in each batch."""
    state = fit.uns["ldvae"]["state"]
    w, v, b = (state[f"decoder.logits.{name}"].astype(float) for name in ("weight", "covariate_weight", "bias"))
    np.testing.assert_array_equal(fit.varm["ldvae_loadings"], state["decoder.logits.weight"])
    np.testing.assert_allclose(w.mean(0), 0, atol=1e-6)
    for batch, name in enumerate(fit.uns["ldvae"]["categories"]["batch"]):
        expected = fit.obsm["X_ldvae"].astype(float) @ w.T + v[:, batch] + b
        rho = sv.tl.normalized_expression(fit, transform_batch=name, key="ldvae", inplace=False).to_numpy(float)
        log_rho = np.log(rho)
        np.testing.assert_allclose(log_rho - log_rho.mean(1, keepdims=True), expected, atol=1e-5)


def test_factors_are_sorted_centred_and_signed(fit):
    w = fit.varm["ldvae_loadings"]
    stored = fit.uns["ldvae"]["explained_variance"]
    assert (np.diff(stored) <= 0).all()
    np.testing.assert_allclose(stored, explained_variance(fit.obsm["X_ldvae"], torch.tensor(w)).variance, rtol=1e-4)
    assert ((w**3).sum(0) > 0).all()


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data will no longer be the default")  # anndata's own default
@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_the_file_is_the_whole_result_to_the_bit(fit, form, tmp_path):
    path = tmp_path / f"fit.{form}"
    getattr(fit, f"write_{form}")(path)
    back = getattr(ad, f"read_{form}")(path)
    for slot, key in (("varm", "ldvae_loadings"), ("obsm", "X_ldvae")):
        np.testing.assert_array_equal(getattr(back, slot)[key], getattr(fit, slot)[key])
    for name in ("explained_variance", "explained_variance_ratio"):
        np.testing.assert_array_equal(back.uns["ldvae"][name], fit.uns["ldvae"][name])
    again = sv.tl.normalized_expression(back, key="ldvae", inplace=False)
    np.testing.assert_array_equal(again, fit.layers["ldvae_normalized"])
    model = load(back, "ldvae").model
    np.testing.assert_array_equal(model.decoder.loadings().detach(), fit.varm["ldvae_loadings"])


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
def test_every_question_is_answered(likelihood, adata):
    dispersion = "gene" if likelihood == "poisson" else "gene-cell"
    sv.tl.ldvae(adata, "batch", likelihood=likelihood, dispersion=dispersion, **QUICK)
    ask_everything(adata, "ldvae")


def test_the_same_seed_gives_the_same_bits(fit, simulated):
    again = simulated.copy()
    sv.tl.ldvae(again, "batch", **QUICK)
    assert fingerprint(again) == fingerprint(fit)


def test_genes_outside_the_model_have_no_loading(adata):
    adata.var["highly_variable"] = np.arange(adata.n_vars) % 3 > 0
    sv.tl.ldvae(adata, **QUICK)
    missing = np.isnan(adata.varm["ldvae_loadings"])
    np.testing.assert_array_equal(missing.all(1), ~adata.var["highly_variable"])
    np.testing.assert_array_equal(missing.any(1), ~adata.var["highly_variable"])


def test_the_prior_shrinks_loadings(adata):
    sizes = []
    for loadings_sd in (None, 0.3, 0.03):
        sv.tl.ldvae(adata, loadings_sd=loadings_sd, batch_size=16, early_stopping=False, **(QUICK | {"max_epochs": 60}))
        sizes.append(np.square(adata.varm["ldvae_loadings"]).mean())
    assert sizes[0] > sizes[1] > 3 * sizes[2]


def test_a_new_fit_leaves_no_loadings_of_the_old_one(adata):
    sv.tl.ldvae(adata, key_added="k", **QUICK)
    sv.tl.scvi(adata, key_added="k", **QUICK)
    assert "k_loadings" not in adata.varm


def test_loadings_of_somebody_else_are_not_overwritten(adata):
    adata.varm["ldvae_loadings"] = np.ones((adata.n_vars, 2))
    before = fingerprint(adata)
    with pytest.raises(ValueError, match=r"varm\['ldvae_loadings'\]"):
        sv.tl.ldvae(adata, **QUICK)
    assert fingerprint(adata) == before


def test_finds_the_factors_of_data_made_from_such_a_model():
    """Two independent factors with loadings on genes of their own: found again, up to order."""
    rng = np.random.default_rng(0)
    z, w = rng.normal(size=(1000, 2)), np.zeros((60, 2))
    w[:15, 0], w[15:25, 1] = 1.5, 1.0
    rate = np.exp(z @ w.T + rng.normal(0, 1, 60))
    counts = rng.poisson(600 * rate / rate.sum(1, keepdims=True))
    adata = ad.AnnData(counts.astype(np.float32))
    sv.tl.ldvae(adata, n_latent=2, n_hidden=32, max_epochs=60, progress=False)
    found, truth = adata.varm["ldvae_loadings"], w - w.mean(0)
    span = np.linalg.qr(truth)[0]
    kept = np.linalg.norm(span.T @ np.linalg.qr(found)[0]) ** 2 / 2
    assert kept > 0.95  # the plane of the loadings
    log_rho = found @ adata.obsm["X_ldvae"].T
    assert np.corrcoef(log_rho.ravel(), (truth @ z.T).ravel())[0, 1] > 0.9


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n_latent": 0}, "n_latent"),
        ({"loadings_sd": 0.0}, "loadings_sd"),
        ({"n_latent": 101}, "only 100 genes"),
        ({"dispersion": "gene-label"}, "labels_key"),
    ],
)
def test_refuses_what_makes_no_sense(options, match, adata):
    before = fingerprint(adata)
    with pytest.raises(ValueError, match=match):
        sv.tl.ldvae(adata, **(QUICK | options))
    assert fingerprint(adata) == before


@pytest.mark.real_data
def test_factors_of_blood_progenitors_mean_what_their_loadings_say(real_data):
    """Genes of large loadings are high where their factor is, and so are the lineages they mark."""
    adata = real_data("paul15")
    counts = adata.X.toarray()
    adata.var["counted"] = counts.mean(0) > 0.03
    sv.tl.ldvae(adata, mask_var="counted", progress=False, normalized=False)
    modelled = adata.var["counted"].to_numpy()
    shares = counts[:, modelled] / counts[:, modelled].sum(1, keepdims=True)
    z, w = adata.obsm["X_ldvae"], pd.DataFrame(adata.varm["ldvae_loadings"], index=adata.var_names)[modelled]
    for factor in range(10):
        low, high = np.quantile(z[:, factor], [0.1, 0.9])
        change = np.log((shares[z[:, factor] > high].mean(0) + 1e-5) / (shares[z[:, factor] < low].mean(0) + 1e-5))
        assert spearmanr(change, w[factor]).statistic > 0.5
    means = pd.DataFrame(z).groupby(adata.obs["lineage"].to_numpy(), observed=True).mean()
    for lineage, gene, other in (("Eos", "Epx", "Prg2"), ("Mk", "Pf4", "Itga2b")):
        factor = int(w.loc[gene].argmax())
        assert other in w[factor].nlargest(100).index
        assert means.loc[lineage, factor] > 0.5
