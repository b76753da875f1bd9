from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pytest
from fingerprint import fingerprint
from questions import ask_everything

import scanpy_scvi as sv
from scanpy_scvi.modules.spec import ModelSpec
from scanpy_scvi.posterior.codes import clusters_of, hidden_codes
from scanpy_scvi.store.load import load

OPTIONS = {"batch_key": "batch", "max_epochs": 15, "n_hidden": 16, "progress": False}


@pytest.fixture(scope="module")
def coded(simulated):
    adata = simulated.copy()
    sv.tl.saucie(adata, **OPTIONS)
    return adata


def parts(adata):
    return ModelSpec.from_json(adata.uns["saucie"]["spec"])


def test_slots(simulated, coded):
    new = {slot: set(getattr(coded, slot)) - set(getattr(simulated, slot)) for slot in ("obs", "obsm", "layers", "uns")}
    assert new == {"obs": {"saucie"}, "obsm": {"X_saucie"}, "layers": {"saucie_normalized"}, "uns": {"saucie"}}
    assert coded.obsm["X_saucie"].shape == (120, 2)
    assert coded.obs["saucie"].dtype == "category"
    assert coded.uns["saucie"]["codes"].shape[1] == 16


def test_clusters_are_the_codes_that_enough_cells_have(coded):
    codes, numbers = coded.uns["saucie"]["codes"], coded.obs["saucie"]
    sizes = numbers[numbers != "unassigned"].value_counts()
    assert (sizes[sizes > 0] >= 10).all()
    assert [int(k) for k in sizes[sizes > 0].index] == list(range(len(codes)))
    found = hidden_codes(load(coded, "saucie").model, coded.obsm["X_saucie"], batch=coded.uns["saucie"]["code_batch"])
    of_cells = np.where(numbers == "unassigned", "-1", numbers.astype(str)).astype(int)
    np.testing.assert_array_equal(clusters_of(found, codes), of_cells)


def test_everything_after_the_fit_works_on_a_reloaded_file(coded, tmp_path):
    for write, read in (("write_h5ad", ad.read_h5ad), ("write_zarr", ad.read_zarr)):
        path = tmp_path / write
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Writing zarr v2")
            getattr(coded.copy(), write)(path)
        back = read(path)
        assert back.obs["saucie"].tolist() == coded.obs["saucie"].tolist()
        np.testing.assert_array_equal(back.uns["saucie"]["codes"], coded.uns["saucie"]["codes"])
    ask_everything(back, "saucie")
    assert sv.tl.verify(back, key="saucie")["level"] == "ok"


def test_mapped_cells_get_clusters_by_the_codes_of_the_fit(coded, simulated):
    query = simulated[:50].copy()
    sv.tl.map_query(query, coded, key="saucie", progress=False)
    np.testing.assert_allclose(query.obsm["X_saucie"], coded.obsm["X_saucie"][:50], rtol=1e-4, atol=1e-4)
    same = query.obs["saucie"].astype(str).to_numpy() == coded.obs["saucie"].astype(str).to_numpy()[:50]
    assert same.mean() > 0.95


def test_a_column_of_the_querys_own_is_not_overwritten_by_clusters(coded, simulated):
    query = simulated[:50].copy()
    query.obs["saucie"] = "mine"
    before = fingerprint(query)
    with pytest.raises(ValueError, match=r"obs\['saucie'\]` exists and was not written"):
        sv.tl.map_query(query, coded, key="saucie", progress=False)
    assert fingerprint(query) == before
    del query.obs["saucie"]
    for _ in range(2):  # clusters of an earlier call may go
        sv.tl.map_query(query, coded, key="saucie", progress=False)


@pytest.mark.parametrize("likelihood", ["gaussian", "nb"])
def test_it_is_made_of_the_parts_that_it_says(likelihood, simulated):
    adata = simulated.copy()
    sv.tl.saucie(
        adata, **OPTIONS | {"max_epochs": 2}, likelihood=likelihood, penalties=(("tsne", {"perplexity": 5.0}),)
    )
    spec = parts(adata)
    assert spec.encoder.options["deterministic"]
    assert spec.likelihood.name == likelihood
    assert spec.prior.name == "flat"
    assert [part.name for part in spec.penalties] == ["mmd", "entropy", "tsne"]
    assert "saucie_latent_var" not in adata.obsm


def test_without_batches_there_is_no_price_of_them(simulated):
    adata = simulated.copy()
    sv.tl.saucie(adata, **OPTIONS | {"batch_key": None, "max_epochs": 2})
    assert [part.name for part in parts(adata).penalties] == ["entropy"]


def test_the_same_seed_gives_the_same_bits(simulated, coded):
    adata = simulated.copy()
    sv.tl.saucie(adata, **OPTIONS)
    np.testing.assert_array_equal(adata.obsm["X_saucie"], coded.obsm["X_saucie"])
    assert adata.obs["saucie"].equals(coded.obs["saucie"])


def test_another_model_under_the_key_takes_its_column_away(coded):
    adata = coded.copy()
    sv.tl.scvi(adata, "batch", n_latent=2, n_hidden=16, max_epochs=2, progress=False, key_added="saucie")
    assert "saucie" not in adata.obs
    assert "codes" not in adata.uns["saucie"]


def test_somebody_elses_column_is_not_overwritten(simulated, coded):
    adata = simulated.copy()
    adata.obs["saucie"] = "mine"
    before = fingerprint(adata)
    with pytest.raises(ValueError, match=r"obs\['saucie'\]` exists and was not written by scanpy_scvi"):
        sv.tl.saucie(adata, **OPTIONS)
    adata = simulated.copy()
    sv.tl.scvi(adata, n_latent=2, n_hidden=16, max_epochs=2, progress=False, key_added="saucie")
    adata.obs["saucie"] = "mine"
    with pytest.raises(ValueError, match="was not written by scanpy_scvi"):
        sv.tl.saucie(adata, **OPTIONS)
    assert fingerprint(simulated) != before  # the fixture is another object
    again = coded.copy()
    sv.tl.saucie(again, **OPTIONS | {"max_epochs": 2})
    assert again.obs["saucie"].dtype == "category"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mmd_weight": -1.0}, "mmd_weight"),
        ({"entropy_weight": np.nan}, "entropy_weight"),
        ({"min_cells": 0}, "min_cells"),
        ({"target_sum": 0.0}, "target_sum"),
        ({"likelihood": "normal"}, "'gaussian', 'mse'"),
        ({"penalties": ("mmd",)}, "'mmd' comes twice"),
        ({"key_added": "batch"}, "'batch'"),
    ],
)
def test_refuses(options, words, adata):
    before = fingerprint(adata)
    with pytest.raises(ValueError, match=words):
        sv.tl.saucie(adata, **OPTIONS | options)
    assert fingerprint(adata) == before


def test_entropy_silences_units(cell_lines):
    """The dearer it is, the fewer are on in any cluster."""
    adata, on = cell_lines.copy(), []
    for weight in (0.0, 1.0):
        sv.tl.saucie(
            adata, entropy_weight=weight, max_epochs=40, n_hidden=32, min_cells=1, normalized=False, progress=False
        )
        on.append(adata.uns["saucie"]["codes"].any(0).sum())
    assert on[1] < on[0]
