"""Known answers on real data."""

import numpy as np
import pytest
import scanpy as sc

import scanpy_scvi as sv
from scanpy_scvi.metrics import batch_mixing, ideal_batch_mixing, label_score

INTERFERON = ["CXCL10", "IFIT1", "IFIT3", "RSAD2", "ISG15", "MX1"]


def principal_components(adata):
    """Embed without correction."""
    adata = adata.copy()
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=30, mask_var=None)
    return adata.obsm["X_pca"]


def test_cell_lines_stay_apart_and_their_libraries_mix(cell_lines):
    adata = cell_lines.copy()
    sv.tl.scvi(adata, "batch", max_epochs=15, normalized=False, progress=False)
    batch, line = adata.obs["batch"], adata.obs["cell_type"]
    ideal = ideal_batch_mixing(batch, line)
    before = batch_mixing(principal_components(adata), batch) - ideal
    after = batch_mixing(adata.obsm["X_scvi"], batch) - ideal
    assert label_score(adata.obsm["X_scvi"], line) > 0.98
    assert after < before / 2


@pytest.mark.real_data
def test_interferon_response(real_data):
    """Kang et al. 2018: cells mix over stimulation, lineages stay, and interferon genes answer."""
    adata = real_data("kang_pbmc_ifnb")
    logged = adata.copy()
    sc.pp.normalize_total(logged)
    sc.pp.log1p(logged)
    sc.pp.highly_variable_genes(logged, n_top_genes=800)
    adata.var["chosen"] = logged.var["highly_variable"] | adata.var_names.isin(INTERFERON)
    before = batch_mixing(principal_components(logged[:, adata.var["chosen"]]), adata.obs["condition"])
    sv.tl.scvi(adata, "condition", mask_var="chosen", max_epochs=15, normalized=False, progress=False)
    known = (adata.obs["cell_type_coarse"] != "unassigned").to_numpy()
    assert label_score(adata.obsm["X_scvi"][known], adata.obs["cell_type_coarse"][known]) > 0.92
    assert batch_mixing(adata.obsm["X_scvi"], adata.obs["condition"]) - 0.5 < (before - 0.5) / 2
    rates = {
        condition: sv.tl.normalized_expression(adata, genes=INTERFERON, transform_batch=condition, inplace=False).mean()
        for condition in ("stim", "ctrl")
    }
    assert (np.log2(rates["stim"] / rates["ctrl"]) > 3).all()
