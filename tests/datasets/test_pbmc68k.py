import numpy as np
import pytest
import scanpy as sc
from scipy import sparse

import scanpy_scvi as sv
from scanpy_scvi.datasets import _pbmc68k


def test_counts_give_scanpys_values_back():
    adata = sv.datasets.pbmc68k_counts()
    reduced = sc.datasets.pbmc68k_reduced()
    assert isinstance(adata.X, sparse.csr_matrix)
    assert adata.X.dtype == np.float32
    assert adata.shape == (700, 765)
    assert adata.obs_names.equals(reduced.obs_names)
    assert np.array_equal(adata.X.data, np.rint(adata.X.data))
    totals = adata.obs["n_counts"].to_numpy()[:, None]
    assert (adata.X.sum(axis=1) <= totals).all()
    values = np.log1p(adata.X.toarray() / totals * 1e4)
    assert np.abs(values - reduced.raw.X.toarray()).max() < 1e-3  # scanpy stores three decimals


def test_known_markers_stand_out():
    adata = sv.datasets.pbmc68k_counts()
    cd79a = adata[:, "CD79A"].X.toarray().ravel()
    means = adata.obs.assign(count=cd79a).groupby("bulk_labels", observed=True)["count"].mean()
    assert means.idxmax() == "CD19+ B"


def test_values_that_are_no_logarithms_are_refused(monkeypatch):
    reduced = sc.datasets.pbmc68k_reduced()
    reduced.obs["n_counts"] *= 1.37
    monkeypatch.setattr(sc.datasets, "pbmc68k_reduced", lambda: reduced)
    with pytest.raises(ValueError, match="does not give whole counts"):
        sv.datasets.pbmc68k_counts()


def test_scanpys_own_counts_are_preferred(monkeypatch):
    reduced = sc.datasets.pbmc68k_reduced()
    ours = _pbmc68k.pbmc68k_counts()
    reduced.layers["counts"] = ours.X.copy()
    reduced.raw = None
    monkeypatch.setattr(sc.datasets, "pbmc68k_reduced", lambda: reduced)
    assert (_pbmc68k.pbmc68k_counts().X != ours.X).nnz == 0
