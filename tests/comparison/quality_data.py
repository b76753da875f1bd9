"""The data sets, genes and splits of the quality table: the same for every system."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scanpy as sc

if TYPE_CHECKING:
    import anndata as ad

N_GENES = 2000
TEST_SHARE = 0.1


class Task(NamedTuple):
    """One data set with what is scored on it."""

    name: str
    batch_key: str | None
    label_key: str | None
    score_mixing: bool


TASKS = {
    t.name: t
    for t in (
        Task("cellmix_5batch", "batch", "cell_type", score_mixing=True),
        Task("kang_pbmc_ifnb", "batch", "cell_type_coarse", score_mixing=False),  # the batch is the biology
        Task("hspc_4libraries", "batch", None, score_mixing=True),
        Task("pbmc_facs", None, "cell_type", score_mixing=False),
        Task("pbmc3k", None, "cell_type", score_mixing=False),  # trust only
        # for choosing defaults only
        Task("worm_embryo", "batch", "cell_type", score_mixing=True),
        Task("paul15", None, "lineage", score_mixing=False),
        Task("mouse_bladder", None, "cell_type", score_mixing=False),
    )
}


def load(task: Task) -> ad.AnnData:
    """The counts on the 2,000 most variable genes (Seurat's dispersion, per batch where there is one)."""
    adata = sc.read_h5ad(Path(os.environ["SCANPY_SCVI_DATA"]) / f"{task.name}.h5ad")
    logged = adata.copy()
    sc.pp.normalize_total(logged, target_sum=1e4)
    sc.pp.log1p(logged)
    sc.pp.highly_variable_genes(logged, n_top_genes=min(N_GENES, adata.n_vars), batch_key=task.batch_key)
    adata = adata[:, logged.var["highly_variable"].to_numpy()].copy()
    return adata[np.asarray(adata.X.sum(1)).ravel() > 0].copy()


def held_out(n_cells: int, seed: int) -> np.ndarray:
    """Which cells no system sees in training."""
    test = np.zeros(n_cells, bool)
    test[np.random.default_rng(seed).permutation(n_cells)[: int(TEST_SHARE * n_cells)]] = True
    return test
