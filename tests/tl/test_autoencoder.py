import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from fingerprint import fingerprint
from questions import ask_everything

import scanpy_scvi as sv
from scanpy_scvi.store.load import load

OPTIONS = {"max_epochs": 4, "n_hidden": 16, "n_latent": 3, "progress": False}
KINDS = {
    "deep": {},
    "linear": {"n_layers": 0},
    "linear counts": {"n_layers": 0, "likelihood": "nb"},
    "variational": {"variational": True},
    "linear variational": {"variational": True, "n_layers": 0, "likelihood": "mse"},
    "denoising": {"corruption": 0.3, "l2": 5.0, "norm": "none"},
}


def log_normalised(adata):
    adata = adata.copy()
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    return (adata.X if isinstance(adata.X, np.ndarray) else adata.X.toarray()).astype(np.float64)


def decoded(adata):
    """Reconstruction of log-normalised counts by what a linear fit without batches has written."""
    return adata.obsm["X_ae"] @ adata.varm["ae_loadings"].T + adata.uns["ae"]["state"]["decoder.logits.bias"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_answers_later_questions_after_a_file(kind, adata, tmp_path):
    options = OPTIONS | KINDS[kind]
    sv.tl.autoencoder(adata, "batch", **options)
    adata.write_h5ad(tmp_path / "ae.h5ad")
    again = ad.read_h5ad(tmp_path / "ae.h5ad")
    assert ("ae_latent_var" in again.obsm) == options.get("variational", False)
    assert ("ae_loadings" in again.varm) == (options.get("n_layers") == 0)
    assert again.uns["ae"]["denoised_scale"] == "counts per 10,000"
    assert sv.tl.verify(again, key="ae")["level"] == "ok"
    ask_everything(again, "ae")


@pytest.mark.parametrize("batch_key", [None, "batch"])
def test_a_linear_fit_has_the_axes_of_pca(batch_key, adata):
    """Orthonormal loadings, uncorrelated dimensions by variance; turning them changes nothing that is decoded."""
    sv.tl.autoencoder(adata, batch_key, **OPTIONS | {"n_layers": 0, "likelihood": "mse"})
    w, z = adata.varm["ae_loadings"].astype(np.float64), adata.obsm["X_ae"].astype(np.float64)
    np.testing.assert_allclose(w.T @ w, np.eye(3), atol=1e-5)
    covariance = np.cov(z.T, bias=True)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-5 * covariance.max())
    assert (np.diff(np.diag(covariance)) < 0).all()
    np.testing.assert_allclose(adata.uns["ae"]["explained_variance"], np.diag(covariance) / adata.n_vars, rtol=1e-4)
    np.testing.assert_allclose(adata.uns["ae"]["explained_variance_ratio"].sum(), 1, rtol=1e-5)
    assert ((w**3).sum(0) != 0).all()


def test_turning_changes_nothing_that_is_decoded(adata, monkeypatch):
    layers = []
    for ordered in (True, False):
        if not ordered:
            monkeypatch.setattr("scanpy_scvi.tl._autoencoder._in_order", lambda *_: {})
        sv.tl.autoencoder(adata, "batch", **OPTIONS | {"n_layers": 0, "likelihood": "mse"})
        layers.append(adata.layers["ae_normalized"].copy())
    np.testing.assert_allclose(*layers, rtol=1e-3, atol=1e-2)


@pytest.mark.real_data
def test_a_linear_fit_reconstructs_real_cells_as_well_as_pca(real_data):
    """Within one percent of the least squared error of that rank."""
    adata = real_data("paul15")
    adata.var["highly_variable"] = np.argsort(np.argsort(-log_normalised(adata).var(0))) < 1000
    adata = adata[:, adata.var["highly_variable"]].copy()
    y = log_normalised(adata)
    least = (np.linalg.svd(y - y.mean(0), compute_uv=False)[20:] ** 2).sum()
    sv.tl.autoencoder(adata, n_layers=0, likelihood="mse", n_latent=20, normalized=False, progress=False)
    error = ((y - decoded(adata)) ** 2).sum()
    assert 1 <= error / least < 1.01
    assert adata.uns["ae"]["convergence"]["verdict"] == "converged"


def test_depth_adds_what_a_line_cannot_follow():
    """Cells along a curve in two dimensions of log expression: one latent dimension suffices where the map may bend."""
    rng = np.random.default_rng(0)
    t = rng.uniform(-1, 1, 800)
    shape = np.exp(np.c_[2 * t, 2 - 4 * t**2] @ rng.normal(0, 1, (2, 40)))
    adata = ad.AnnData(rng.poisson(4000 * shape / shape.sum(1, keepdims=True)).astype(np.float32))
    y, errors = None, {}
    for n_layers in (0, 1):
        sv.tl.autoencoder(adata, n_layers=n_layers, n_latent=1, likelihood="mse", max_epochs=60, progress=False)
        fitted = load(adata, "ae")
        cells = fitted.read(adata).take(np.arange(adata.n_obs))
        output = fitted.model.decode(fitted.model.encode(cells).mean, cells).params.detach().numpy()
        y = log_normalised(adata) if y is None else y
        errors[n_layers] = ((y - output) ** 2).sum()
    assert errors[1] < 0.5 * errors[0]


def test_the_same_seed_gives_the_same_bits(simulated):
    found = []
    for _ in range(2):
        adata = simulated.copy()
        sv.tl.autoencoder(adata, "batch", **OPTIONS | KINDS["linear"])
        found.append(fingerprint(adata.uns["ae"]["state"]))
    assert found[0] == found[1]


def test_a_price_of_weights_shrinks_them(simulated):
    sizes = []
    for l2 in (0.0, 300.0):
        adata = simulated.copy()
        sv.tl.autoencoder(adata, **OPTIONS | {"l2": l2, "norm": "none", "max_epochs": 20})
        state = adata.uns["ae"]["state"]
        sizes.append(sum((v**2).sum() for k, v in state.items() if k.endswith("weight")))
    assert sizes[1] < 0.5 * sizes[0]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"likelihood": "normal"}, "likelihood"),
        ({"variational": "yes"}, "variational"),
        ({"n_layers": -1}, "n_layers"),
        ({"corruption": -0.1}, "corruption"),
        ({"n_latent": 200}, "n_latent"),
    ],
)
def test_refuses(options, named, adata):
    before = fingerprint(adata)
    with pytest.raises(ValueError, match=named):
        sv.tl.autoencoder(adata, "batch", **OPTIONS | options)
    assert fingerprint(adata) == before


def test_what_has_no_meaning_is_refused(adata, tmp_path):
    sv.tl.autoencoder(adata, "batch", **OPTIONS)
    with pytest.raises(ValueError, match="log-normalised counts"):
        sv.tl.gene_correlation(adata, ["gene_0", "gene_1"], key="ae")
    with pytest.raises(ValueError, match="without a variance"):
        sv.tl.rank_genes_groups(adata, "label", key="ae", weights="importance")
    with pytest.raises(ValueError, match="cannot be written for scvi-tools"):
        sv.tl.to_scvi_tools(adata, tmp_path / "folder", key="ae")
    sv.tl.autoencoder(adata, "batch", **OPTIONS | KINDS["variational"])
    with pytest.raises(ValueError, match="cannot be written for scvi-tools: its likelihood is 'gaussian'"):
        sv.tl.to_scvi_tools(adata, tmp_path / "folder", key="ae")


def test_new_cells_are_drawn_whatever_the_scale_of_the_latent_space(adata):
    """Without a prior it is free: both maps of a linear fit may be stretched against each other."""
    sv.tl.autoencoder(adata, **OPTIONS | {"n_layers": 0, "likelihood": "mse", "max_epochs": 30})
    spread = []
    for stretch in (1.0, 1e-3):
        state = adata.uns["ae"]["state"]
        state["encoder.mean.weight"] = state["encoder.mean.weight"] * np.float32(stretch)
        state["encoder.mean.bias"] = state["encoder.mean.bias"] * np.float32(stretch)
        state["decoder.logits.weight"] = state["decoder.logits.weight"] / np.float32(stretch)
        drawn = sv.tl.sample(adata, 2000, key="ae")
        spread.append(drawn.obsm["X_ae"].std(0) / stretch)
    np.testing.assert_allclose(spread[0], adata.obsm["X_ae"].std(0), rtol=0.15)
    np.testing.assert_allclose(spread[1], spread[0], rtol=0.1)
