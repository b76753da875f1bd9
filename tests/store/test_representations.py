"""Latent states that lie beside the cells, and entries that claim other ones."""

from __future__ import annotations

import json

import numpy as np
import pytest

import scanpy_scvi as sv
from scanpy_scvi.store.load import load


@pytest.fixture(scope="module")
def fit():
    """A fit without an encoder; do not change it."""
    adata = sv.datasets.simulate(n_cells=60, n_genes=30, density=0.5)
    sv.tl.dgd(adata, n_latent=3, n_hidden=8, n_components=2, max_epochs=3, progress=False)
    return adata


def with_spec(fit, change):
    adata = fit.copy()
    spec = json.loads(adata.uns["dgd"]["spec"])
    change(spec)
    adata.uns["dgd"]["spec"] = json.dumps(spec)
    return adata


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda z: z.astype(str), "real numbers"),
        (lambda z: np.full_like(z, np.nan), "NaN"),
        (lambda z: np.full(z.shape, None, object), "real numbers"),
        (lambda z: z[:, :0], "shape"),
        (lambda z: np.tile(z, 2), "Delete it"),
    ],
)
def test_states_that_are_none_are_refused(spoil, words, fit):
    adata = fit.copy()
    adata.obsm["X_dgd"] = spoil(fit.obsm["X_dgd"])
    with pytest.raises((TypeError, ValueError), match=words):
        load(adata, "dgd")


def test_a_claim_of_many_cells_costs_nothing(fit):
    adata = with_spec(fit, lambda spec: spec["encoder"]["options"].update(n_cells=2**31 - 1))
    assert load(adata, "dgd").model.encoder.z.shape == (60, 3)


def test_a_claim_of_many_dimensions_is_refused_before_states_are_looked_for(fit):
    def claim(spec):
        for role in ("encoder", "decoder", "prior"):
            spec[role]["options"]["n_latent"] = 2**31 - 1

    adata = with_spec(fit, claim)
    del adata.obsm["X_dgd"]
    with pytest.raises(ValueError, match="have shape"):
        load(adata, "dgd")


def test_sizes_that_differ_between_parts_are_refused(fit):
    adata = with_spec(fit, lambda spec: spec["encoder"]["options"].update(n_latent=4))
    with pytest.raises(ValueError, match="different n_latent: 3, 4"):
        load(adata, "dgd")


def test_a_mixture_without_spread_is_refused(fit):
    adata = with_spec(fit, lambda spec: spec["prior"]["options"].update(sd=-1.0))
    with pytest.raises(ValueError, match="cannot be read"):
        load(adata, "dgd")


def test_without_counts_and_states_there_is_nothing_to_go_by(fit):
    slim = sv.tl.slim(fit, key="dgd", copy=True)
    assert slim.obsm["X_dgd"].shape == (60, 3)
    del slim.obsm["X_dgd"]
    with pytest.raises(ValueError, match=r"needs the counts, which `tl\.slim` dropped"):
        load(slim, "dgd")


def test_a_fit_stored_without_its_model_keeps_its_states():
    adata = sv.datasets.simulate(n_cells=60, n_genes=30, density=0.5)
    sv.tl.dgd(adata, n_latent=3, n_hidden=8, n_components=2, max_epochs=2, progress=False, store_model=False)
    assert "state" not in adata.uns["dgd"]
    assert adata.obsm["X_dgd"].shape == (60, 3)
    with pytest.raises(KeyError, match="store_model=False"):
        load(adata, "dgd")
