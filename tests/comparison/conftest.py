"""Real counts, and models of scvi-tools fitted to them for one epoch."""

import functools
import sys
from pathlib import Path
from typing import Any, NamedTuple

import anndata as ad
import numpy as np
import pytest
import torch

import scanpy_scvi as sv
from scanpy_scvi.modules import VAE, Cells
from scanpy_scvi.store import ColumnKeys, Data, read

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode puts no folder on the path

BATCH_ALONE = ColumnKeys(batch_key="batch")


class Pair(NamedTuple):
    """The same weights on both sides."""

    peer: Any
    tensors: dict[str, torch.Tensor]
    """All cells, as the peer takes them."""
    ours: VAE
    data: Data
    cells: Cells
    """All cells, as we take them."""


@functools.cache
def _real_counts() -> ad.AnnData:
    """606 cells of three libraries, every fifth gene."""
    adata = sv.datasets.cell_lines()
    keep = adata.obs["batch"].isin(["celseq2_3cl", "celseq2_5cl_p1", "dropseq_3cl"]).to_numpy()
    adata = adata[keep].copy()[:, ::5].copy()
    depth = np.log(adata.X.sum(1).A1)
    adata.obs["depth"] = (depth - depth.mean()) / depth.std()  # we standardise continuous covariates, the peer does not
    adata.obs["parity"] = [f"p{i % 2}" for i in range(adata.n_obs)]
    return adata


@functools.cache
def fitted_pair(variant, columns: ColumnKeys = BATCH_ALONE) -> Pair:
    """Fit the peer for one epoch and copy its weights."""
    from _peer import all_cells, train
    from _weights import our_model

    adata = _real_counts().copy()
    keys = {
        "batch_key": columns.batch_key,
        "labels_key": columns.labels_key,
        "categorical_covariate_keys": list(columns.categorical_covariate_keys) or None,
        "continuous_covariate_keys": list(columns.continuous_covariate_keys) or None,
    }
    model = train(adata, variant, **keys)
    data = read(adata, columns, layer=None, mask_var=None)
    ours = our_model(model.module.state_dict(), variant, data.dims)
    return Pair(model, all_cells(model), ours, data, data.table.take(np.arange(adata.n_obs)))


@pytest.fixture
def real_counts() -> ad.AnnData:
    """606 cells of three libraries x 400 genes."""
    return _real_counts().copy()


@pytest.fixture(scope="session")
def pair():
    """Return the maker of pairs; each is fitted once."""
    pytest.importorskip("scvi")
    return fitted_pair


@pytest.fixture
def posterior_mean(monkeypatch):
    """Let every draw, theirs and ours, be the mean of its normal."""
    monkeypatch.setattr(torch.distributions.Normal, "rsample", lambda self, *_: self.loc)
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
