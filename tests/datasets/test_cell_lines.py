import os
from importlib.resources import files
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pytest
from scipy import sparse

import scanpy_scvi as sv
from scanpy_scvi.metrics import batch_mixing, ideal_batch_mixing


@pytest.fixture(scope="module")
def adata():
    return sv.datasets.cell_lines()


def test_holds_counts_of_all_cells(adata):
    assert adata.shape == (1021, 2000)
    assert isinstance(adata.X, sparse.csr_matrix)
    assert adata.X.dtype == np.float32
    assert adata.X.has_canonical_format
    assert np.array_equal(adata.X.data, np.rint(adata.X.data))
    assert adata.X.data.min() >= 1
    assert adata.obs_names.is_unique
    assert adata.var_names.is_unique


def test_design_is_the_published_one(adata):
    counts = adata.obs.groupby(["batch", "cell_type"], observed=False).size().unstack()
    assert counts.sum(axis=1).to_dict() == {
        "celseq2_3cl": 240,
        "celseq2_5cl_p1": 156,
        "celseq2_5cl_p2": 163,
        "celseq2_5cl_p3": 252,
        "dropseq_3cl": 210,
    }
    assert counts.sum().to_dict() == {"A549": 186, "H1975": 271, "H2228": 217, "H838": 146, "HCC827": 201}
    assert (counts.loc[["celseq2_3cl", "dropseq_3cl"], ["A549", "H838"]] == 0).all(axis=None)
    assert (adata.obs["protocol"] == "Drop-seq").equals(adata.obs["batch"] == "dropseq_3cl")


def test_batches_need_correcting(adata):
    x = np.log1p(adata.X.toarray() / adata.X.sum(axis=1) * 1e4)
    u, s, _ = np.linalg.svd(np.asarray(x - x.mean(0)), full_matrices=False)
    ideal = ideal_batch_mixing(adata.obs["batch"], adata.obs["cell_type"])
    assert batch_mixing(u[:, :30] * s[:30], adata.obs["batch"]) > ideal + 0.3


def test_source_and_licence_are_told(adata):
    assert "MIT" in adata.uns["source"]["licence"]
    assert "Luyi Tian" in (files("scanpy_scvi.datasets") / "cell_lines.LICENSE.txt").read_text()


def test_file_is_small_and_old_anndata_can_read_it():
    path = files("scanpy_scvi.datasets") / "cell_lines.h5ad"
    assert path.stat().st_size < 1e6
    known = {"anndata", "array", "categorical", "dataframe", "dict", "string", "string-array"}  # all in anndata 0.8
    found = set()
    with h5py.File(path) as file:
        file.visititems(lambda _, item: found.add(item.attrs["encoding-type"]))
    assert found <= known


@pytest.mark.real_data
@pytest.mark.skipif("SCANPY_SCVI_DATA" not in os.environ, reason="SCANPY_SCVI_DATA is not set")
def test_equals_the_source(adata):
    source = ad.read_h5ad(Path(os.environ["SCANPY_SCVI_DATA"]) / "cellmix_5batch.h5ad")[
        adata.obs_names, adata.var_names
    ]
    assert (adata.X != source.X).nnz == 0
    assert adata.obs["cell_type"].astype(str).equals(source.obs["cell_type"].astype(str))
    assert adata.var["ensembl"].astype(str).equals(source.var["ensembl"].astype(str))
