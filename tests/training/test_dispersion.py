"""Dispersions after a fit of few cells."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import torch
from scipy import stats

import scanpy_scvi as sv
from scanpy_scvi.store.load import load
from scanpy_scvi.training import dispersion
from scanpy_scvi.training.dispersion import _slope, settle_dispersion

SMALL = {"n_hidden": 8, "n_latent": 2, "max_epochs": 3, "normalized": False, "progress": False}


def test_slope_is_the_derivative_of_the_log_likelihood():
    rng = np.random.default_rng(0)
    x, mu, theta = rng.poisson(3, (6, 4)), rng.uniform(0.1, 8, (6, 4)), rng.uniform(0.2, 9, (6, 4))
    shift, h = rng.normal(size=4), 1e-5

    def total(shift):
        t = theta * np.exp(shift)
        return stats.nbinom.logpmf(x, t, t / (t + mu)).sum(0)

    given = (torch.from_numpy(a) for a in (x.astype(float), np.log(mu), np.log(theta), shift))
    np.testing.assert_allclose(_slope(*given), (total(shift + h) - total(shift - h)) / (2 * h), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["gene", "gene-batch", "gene-cell"])
def test_thetas_of_the_data_are_found(kind):
    """A fit of few steps leaves theta where it began; settled, it is that of the counts."""
    rng = np.random.default_rng(0)
    theta = np.repeat([0.2, 20.0], 10)
    adata = ad.AnnData(rng.poisson(5 * rng.gamma(theta, 1 / theta, (500, 20))).astype(np.float32))
    adata = adata[np.asarray(adata.X.sum(1)).ravel() > 0].copy()
    adata.obs["batch"] = np.arange(adata.n_obs) % 2
    adata.obs["batch"] = adata.obs["batch"].astype(str).astype("category")
    sv.tl.scvi(adata, "batch", dispersion=kind, **SMALL)
    fitted = load(adata, "scvi")
    table = fitted.read(adata)
    cells = table.take(np.arange(table.n_cells))
    with torch.no_grad():
        output = fitted.model.decode(fitted.model.encode(cells).mean, cells)
        found = fitted.model.likelihood.log_theta(output, cells).mean(0).exp().numpy()
    assert 0.1 < np.median(found[:10]) < 0.5
    assert np.median(found[10:]) > 4


def test_only_where_it_helps(adata, quick_fit, monkeypatch):
    quick_fit(adata)
    fitted = load(adata, "scvi")
    table = fitted.read(adata)
    monkeypatch.setattr(dispersion, "MOST_CELLS", 100)
    before = fitted.model.likelihood.dispersion.log_theta.clone()
    rows, device = np.arange(table.n_cells), torch.device("cpu")
    assert not settle_dispersion(fitted.model, table, rows, device)  # too many cells
    assert torch.equal(fitted.model.likelihood.dispersion.log_theta, before)
    assert settle_dispersion(fitted.model, table, rows[:90], device)
    assert not torch.equal(fitted.model.likelihood.dispersion.log_theta, before)
    quick_fit(adata, likelihood="zinb")
    assert not settle_dispersion(load(adata, "scvi").model, table, rows[:90], device)
