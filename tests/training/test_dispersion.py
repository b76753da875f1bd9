"""Dispersions after a fit of few cells."""

from __future__ import annotations

import sys

import anndata as ad
import numpy as np
import pytest
import torch
from scipy import stats

import scanpy_scvi as sv
from scanpy_scvi.store.load import load
from scanpy_scvi.training.dispersion import _slope, can_settle

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


def test_only_of_few_cells_and_of_thetas_that_are_read_as_they_are(adata, quick_fit):
    quick_fit(adata)
    model = load(adata, "scvi").model
    assert [can_settle(model, np.arange(n)) for n in (1, 2, 1000, 1001)] == [False, True, True, False]
    quick_fit(adata, likelihood="zinb")
    assert not can_settle(load(adata, "scvi").model, np.arange(100))


def test_held_out_cells_may_speak_against_it(adata, quick_fit, monkeypatch):
    """Where the dispersions of the training cells make the held-out bound worse, the fit keeps its own."""
    fitting = sys.modules["scanpy_scvi.training.fit"]  # the package has a function of that name
    monkeypatch.setattr(fitting, "settle_dispersion", lambda model, *_: model.likelihood.shift_log_theta(-20.0))
    quick_fit(adata)
    assert load(adata, "scvi").model.likelihood.dispersion.log_theta.min() > -10


def test_the_bound_of_a_fit_is_that_of_the_dispersions_it_keeps():
    rng = np.random.default_rng(0)
    adata = ad.AnnData(1 + rng.poisson(5 * rng.gamma(0.2, 5, (400, 20))).astype(np.float32))
    sv.tl.scvi(adata, **SMALL)
    assert adata.uns["scvi"]["convergence"]["best_elbo"] > adata.uns["scvi"]["history"]["validation_elbo"].max()
