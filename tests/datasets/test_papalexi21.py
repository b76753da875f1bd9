import os
from importlib.resources import files
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

import scanpy_scvi as sv


@pytest.fixture(scope="module")
def adata():
    return sv.datasets.papalexi21()


def test_holds_counts_of_all_cells(adata):
    assert adata.shape == (7850, 299)
    assert isinstance(adata.X, sparse.csr_matrix)
    assert adata.X.dtype == np.float32
    assert np.array_equal(adata.X.data, np.rint(adata.X.data))
    assert adata.X.data.min() >= 1
    assert adata.obs_names.is_unique
    n_cells = adata.obs["perturbation"].value_counts()
    assert n_cells["control"] == 1000
    assert n_cells.drop("control").between(33, 300).all()
    assert adata.obs.groupby("guide", observed=True)["perturbation"].nunique().eq(1).all()


def test_the_pathway_of_interferon_gamma_is_in_it(adata):
    """Knock-outs of its receptors and kinases have less STAT1, those of SMAD4 have not, but less FN1."""
    x = adata.X.toarray()
    share = np.log2(1 + 1e4 * x / x.sum(1, keepdims=True))

    def change(knocked_out, gene):
        column = share[:, adata.var_names.get_loc(gene)]
        of = adata.obs["perturbation"].to_numpy()
        return column[of == knocked_out].mean() - column[of == "control"].mean()

    for knocked_out in ("IFNGR1", "IFNGR2", "JAK2"):
        assert change(knocked_out, "STAT1") < -0.7
    assert abs(change("SMAD4", "STAT1")) < 0.3
    assert change("SMAD4", "FN1") < -0.7


def test_source_and_licence_are_told(adata):
    assert "MIT" in adata.uns["source"]["licence"]
    assert "sceptredata authors" in (files("scanpy_scvi.datasets") / "papalexi21.LICENSE.txt").read_text()
    assert (files("scanpy_scvi.datasets") / "papalexi21.h5ad").stat().st_size < 1e6


@pytest.mark.real_data
@pytest.mark.skipif("SCANPY_SCVI_DATA" not in os.environ, reason="SCANPY_SCVI_DATA is not set")
def test_equals_the_source(adata):
    source = ad.read_h5ad(Path(os.environ["SCANPY_SCVI_DATA"]) / "papalexi_eccite.h5ad")[adata.obs_names]
    assert (adata.X != source.X).nnz == 0
    assert (source.obs["guide_fraction"] >= 0.8).all()
    for column in ("perturbation", "guide", "batch"):
        assert adata.obs[column].astype(str).equals(source.obs[column].astype(str))
