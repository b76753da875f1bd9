"""Blood cells with and without interferon beta, with the stimulated cells of one type held out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import anndata as ad
import numpy as np
import scanpy as sc

CONDITION, CONTROL, STIMULATED, TYPE = "condition", "ctrl", "stim", "cell_type"
LEAST_CELLS = 30


class Task(NamedTuple):
    """One type held out."""

    held_out: str
    train: ad.AnnData
    """Counts of all other cells."""
    real: np.ndarray
    """Log-normalised counts of the held-out cells."""
    total: float
    """Total that counts are brought to before their logarithm is taken."""

    def logs(self) -> np.ndarray:
        """Log-normalised counts of the training cells."""
        return log_normalized(self.train.X.toarray(), self.total)

    def under(self, condition: str, name: str | None = None) -> np.ndarray:
        """Training cells of a type, by default the held-out one, under a condition."""
        obs = self.train.obs
        return ((obs[CONDITION] == condition) & (obs[TYPE] == (self.held_out if name is None else name))).to_numpy()


def log_normalized(counts: np.ndarray, total: float) -> np.ndarray:
    """Logarithm of one plus the counts, brought to a total."""
    return np.log1p(total * counts / np.maximum(counts.sum(1, keepdims=True), 1))


def read() -> ad.AnnData:
    """Cells of the types with enough of them under both conditions."""
    adata = ad.read_h5ad(Path(os.environ["SCANPY_SCVI_DATA"]) / "kang_pbmc_ifnb.h5ad")
    adata.obs = adata.obs[[CONDITION, TYPE]].astype(str)
    n = adata.obs.groupby([TYPE, CONDITION]).size().unstack(fill_value=0)
    return adata[adata.obs[TYPE].isin(n.index[(n >= LEAST_CELLS).all(axis=1)])].copy()


def hold_out(adata: ad.AnnData, name: str, n_genes: int) -> Task:
    """Set the stimulated cells of a type aside; the genes are those that vary most among all others."""
    away = _of(adata, name)
    logs = sc.pp.log1p(sc.pp.normalize_total(adata[~away], copy=True), copy=True)
    sc.pp.highly_variable_genes(logs, n_top_genes=n_genes)
    adata = adata[:, logs.var["highly_variable"]]
    adata = adata[np.asarray(adata.X.sum(1)).ravel() > 0]
    away = _of(adata, name)
    train = adata[~away].copy()
    total = float(np.median(np.asarray(train.X.sum(1))))
    return Task(name, train, log_normalized(adata[away].X.toarray(), total), total)


def _of(adata: ad.AnnData, name: str) -> np.ndarray:
    return ((adata.obs[TYPE] == name) & (adata.obs[CONDITION] == STIMULATED)).to_numpy()
