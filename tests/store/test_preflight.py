"""What `tl.scvi` says before it starts, each sentence provoked."""

from __future__ import annotations

import os
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import scanpy_scvi as sv
from scanpy_scvi.store.covariates import ColumnKeys
from scanpy_scvi.store.preflight import Finding, quick_findings
from scanpy_scvi.store.read import read

DATA = os.environ.get("SCANPY_SCVI_DATA")


def findings(adata: ad.AnnData, mask_var: object = "auto", **columns: object) -> list[Finding]:
    keys = ColumnKeys(**columns)
    return quick_findings(adata, read(adata, keys, layer=None, mask_var=mask_var), keys)


def of(found: list[Finding], topic: str) -> Finding:
    """The one finding about a topic."""
    (one,) = [f for f in found if f.topic == topic]
    return one


@pytest.fixture
def adata() -> ad.AnnData:
    return sv.datasets.simulate(n_cells=240, n_genes=300, n_batches=3, n_labels=2, density=0.3)


def test_sound_data_give_one_ok_line_for_each_topic(adata):
    found = findings(adata, batch_key="batch", labels_key="label")
    assert {f.topic: f.level for f in found} == dict.fromkeys(("libraries", "genes", "batches", "confounding"), "ok")
    assert of(found, "batches").message == "3 batches of 80 cells each"
    assert of(found, "genes").message == "all 300 genes are modelled"


def test_the_object_stays_as_it_is(adata):
    before = adata.copy()
    findings(adata, batch_key="batch", labels_key="label")
    assert (adata.X != before.X).nnz == 0
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert set(adata.uns) == set(before.uns)


def test_a_cell_with_hardly_any_counts(adata):
    row = sparse.lil_matrix(adata.X)
    row[7] = 0
    row[7, 3] = 2
    adata.X = row.tocsr()
    found = of(findings(adata), "libraries")
    assert found.level == "warning"
    assert "1 of 240 cells has fewer than 20 counts (first: 'cell_7')" in found.message
    assert "sc.pp.filter_cells(adata, min_counts=20)" in found.message


def test_few_counts_under_a_mask_ask_for_more_genes(adata):
    adata.var["highly_variable"] = np.asarray(adata.X.min(axis=0).toarray()).ravel() >= 0
    adata.var.iloc[12:, adata.var.columns.get_loc("highly_variable")] = False
    keep = np.asarray(adata[:, :12].X.sum(1)).ravel() > 0
    found = [f for f in findings(adata[keep]) if f.topic == "libraries" and f.level == "warning"]
    assert "in the modelled genes" in found[0].message
    assert "Model more genes" in found[0].message


def test_a_library_far_from_its_own_batch(adata):
    """Thirty times its batch's median, and so in another batch that is as large everywhere."""
    large = (adata.obs["batch"] == "batch_1").to_numpy()
    scale = np.where(large, 30.0, 1.0)
    adata.X = sparse.csr_matrix(sparse.diags(scale) @ adata.X, dtype=np.float32)
    assert of(findings(adata, batch_key="batch"), "libraries").level == "ok"
    single = int(np.flatnonzero(~large)[0])
    scale = np.ones(adata.n_obs)
    scale[single] = 30
    adata.X = sparse.csr_matrix(sparse.diags(scale) @ adata.X, dtype=np.float32)
    found = of(findings(adata, batch_key="batch"), "libraries")
    assert found.level == "warning"
    assert "1 of 240 cells has a library more than 6 MAD from their batch's median on the log scale (first: " in (
        found.message
    )
    assert repr(adata.obs_names[single]) in found.message


def test_libraries_over_a_thousandfold_range_get_a_note(adata):
    scale = np.round(np.geomspace(1, 5000, adata.n_obs))
    adata.X = sparse.csr_matrix(sparse.diags(scale) @ adata.X, dtype=np.float32)
    found = of(findings(adata), "libraries")
    assert found.level == "note"
    assert "times the smallest" in found.message


def test_a_size_factor_out_of_line(adata):
    adata.obs["factor"] = adata.obs["true_library"] / 100
    assert of(findings(adata, size_factor_key="factor"), "covariates").level == "ok"
    adata.obs.loc["cell_6", "factor"] = 25000.0
    found = of(findings(adata, size_factor_key="factor"), "covariates")
    assert found.level == "warning"
    assert "(first: 'cell_6' with 2.5e+04; median" in found.message


def test_a_batch_with_few_cells_is_named(adata):
    adata.obs["batch"] = adata.obs["batch"].astype(str)
    adata.obs.iloc[:11, adata.obs.columns.get_loc("batch")] = "tiny/odd"
    found = of(findings(adata, batch_key="batch"), "batches")
    assert found.level == "warning"
    assert "1 of 4 batches of `obs['batch']` has fewer than 50 cells ('tiny/odd' with 11)" in found.message


def test_a_single_batch_is_noted(adata):
    adata.obs["batch"] = "one"
    assert of(findings(adata, batch_key="batch"), "batches").level == "note"


def test_a_batch_that_is_the_label(adata):
    adata.obs["chip"] = adata.obs["label"].astype(str) + "_chip"
    found = of(findings(adata, batch_key="chip", labels_key="label"), "confounding")
    assert found.level == "warning"
    assert "coincide (Cramér's V 1.00): correcting for the batch removes what sets the labels apart" in found.message


def test_batches_nested_in_labels_coincide_too(adata):
    """Two batches for each label: finer, yet every difference between labels is one between batches."""
    half = np.arange(adata.n_obs) % 4 // 2
    adata.obs["donor"] = adata.obs["label"].astype(str) + np.where(half, "_a", "_b")
    assert of(findings(adata, batch_key="donor", labels_key="label"), "confounding").level == "warning"


def test_a_label_in_one_batch_only_is_named(adata):
    """A quarter of the cells of one batch form a label of their own; the rest is balanced."""
    label = adata.obs["label"].astype(str)
    label.iloc[np.flatnonzero(adata.obs["batch"] == "batch_2")[:20]] = "rare"
    adata.obs["label"] = label
    found = of(findings(adata, batch_key="batch", labels_key="label"), "confounding")
    assert found.level == "note"
    assert "1 of 3 labels occurs in one batch only ('rare' in 'batch_2')" in found.message


def test_many_genes_without_a_selection():
    counts = sparse.random(60, 5001, density=0.05, random_state=0, format="csr", data_rvs=lambda n: np.ones(n))
    adata = ad.AnnData(sparse.csr_matrix(counts, dtype=np.float32))
    adata.obs["batch"] = pd.Categorical(["a", "b"] * 30)
    found = of(findings(adata, batch_key="batch"), "genes")
    assert found.level == "warning"
    assert "sc.pp.highly_variable_genes(adata, n_top_genes=2000, batch_key='batch')" in found.message
    adata.var["highly_variable"] = np.arange(5001) < 5000
    assert of(findings(adata, batch_key="batch"), "genes").level == "ok"
    assert of(findings(adata, mask_var=None), "genes").level == "warning"


def test_a_selection_of_hardly_any_gene(adata):
    adata.var["highly_variable"] = np.arange(adata.n_vars) < 150
    found = of(findings(adata), "genes")
    assert found.level == "warning"
    assert "only 150 of 300 genes are selected" in found.message


@pytest.mark.real_data
@pytest.mark.skipif(DATA is None, reason="SCANPY_SCVI_DATA names no folder")
@pytest.mark.parametrize(
    ("file", "batch_key", "labels_key", "warned"),
    [
        ("cellmix_5batch", "batch", "cell_type", set()),
        ("kang_pbmc_ifnb", "batch", "cell_type", set()),
        ("kang_pbmc_ifnb", "batch", "condition", {"confounding"}),
        ("worm_embryo", "batch", "cell_type", {"libraries"}),
        ("worm_embryo", "batch", "time_point", {"libraries", "confounding"}),
        ("glioblastoma_panobinostat", "batch", "condition", set()),
        ("glioblastoma_panobinostat", "sample", "condition", {"confounding"}),
        ("papalexi_eccite", "batch", "perturbation", set()),
        ("datlinger_scifi_tcr", "batch", "perturbation", {"libraries"}),
        ("neurons10k_1000genes", "batch", None, {"batches"}),
        ("hspc_4libraries", "batch", None, set()),
    ],
)
def test_real_data_are_judged_as_a_biologist_would(file, batch_key, labels_key, warned):
    """Designs that are known: stimulated against control, samples within conditions, an almost empty library."""
    adata = ad.read_h5ad(Path(DATA) / f"{file}.h5ad")
    found = findings(adata, batch_key=batch_key, labels_key=labels_key)
    assert {f.topic for f in found if f.level == "warning"} - {"genes"} == warned
