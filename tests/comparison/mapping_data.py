"""References and queries of the mapping table: the same cells and genes for every system."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import anndata as ad
import numpy as np
import scanpy as sc

N_GENES = 2000
LABEL, BATCH = "label", "batch"
LINEAGES = {
    "Naive CD4 T": "T cell",
    "Memory CD4 T": "T cell",
    "CD8 T": "T cell",
    "CD14+ Mono": "Monocyte",
    "FCGR3A+ Mono": "Monocyte",
    "B": "B cell",
    "NK": "NK cell",
}
"""Cell types of `pbmc3k` by the names of the lineages in `pbmc_facs`; the others keep theirs."""
PLATES = ("celseq2_3cl", "celseq2_5cl_p1", "celseq2_5cl_p2", "celseq2_5cl_p3", "dropseq_3cl")
WITHHELD = {
    "A549": "celseq2_5cl_p3",
    "H838": "celseq2_5cl_p2",
    "H2228": "celseq2_5cl_p1",
    "H1975": "celseq2_3cl",
    "HCC827": "dropseq_3cl",
}
"""A plate with each line, every plate once."""


class Task(NamedTuple):
    """A reference, a query, and perhaps a kind of cell that the reference lacks."""

    data: str
    query: str
    withheld: str = ""


TASKS = (
    Task("pbmc", "pbmc_facs"),
    *(Task("pbmc", "pbmc_facs", lineage) for lineage in ("B cell", "NK cell", "Monocyte", "T cell")),
    *(Task("cellmix", plate) for plate in PLATES),
    *(Task("cellmix", plate, line) for line, plate in WITHHELD.items()),
)


class Split(NamedTuple):
    """Counts of the most variable genes, chosen on the reference alone; `obs` has `label` and `batch`."""

    reference: ad.AnnData
    query: ad.AnnData
    new: np.ndarray
    """Query cells of a kind that the reference lacks."""
    scored: np.ndarray
    """Query cells for novelty: those, and the kinds that the reference has."""


def read(name: str) -> ad.AnnData:
    """A data set from the folder that SCANPY_SCVI_DATA names."""
    return sc.read_h5ad(Path(os.environ["SCANPY_SCVI_DATA"]) / f"{name}.h5ad")


def logged(adata: ad.AnnData) -> ad.AnnData:
    """log(1 + counts per 10,000), of a copy."""
    adata = adata.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    return adata


def load(task: Task) -> Split:
    """Make the reference and the query of a task."""
    reference, query = _pbmc() if task.data == "pbmc" else _cellmix(task.query)
    reference = reference[(reference.obs[LABEL] != task.withheld).to_numpy()].copy()
    several = reference.obs[BATCH].nunique() > 1
    table = sc.pp.highly_variable_genes(
        logged(reference), n_top_genes=N_GENES, batch_key=BATCH if several else None, inplace=False
    )
    genes = table["highly_variable"].to_numpy()
    reference, query = (a[:, genes].copy() for a in (reference, query))
    query = query[np.asarray(query.X.sum(1)).ravel() > 0].copy()
    labels = query.obs[LABEL].to_numpy()
    new = ~np.isin(labels, reference.obs[LABEL].to_numpy())
    # with a withheld kind, that alone is looked for: CD34+ cells are foreign to pbmc3k anyway
    scored = ~new | (labels == task.withheld) if task.withheld else np.ones(len(new), bool)
    return Split(reference, query, new, scored)


def _pbmc() -> tuple[ad.AnnData, ad.AnnData]:
    reference, query = read("pbmc3k"), read("pbmc_facs")
    reference = reference[(reference.obs["cell_type"] != "unlabelled").to_numpy()]
    genes = reference.var_names.intersection(query.var_names)
    reference, query = (ad.AnnData(a[:, genes].X, obs=a.obs, var=a[:, genes].var[[]]) for a in (reference, query))
    reference.obs[LABEL] = reference.obs["cell_type"].astype(str).replace(LINEAGES)
    query.obs[LABEL] = query.obs["lineage"].astype(str)
    reference.obs[BATCH], query.obs[BATCH] = "pbmc3k", "pbmc_facs"
    return reference, query


def _cellmix(plate: str) -> tuple[ad.AnnData, ad.AnnData]:
    adata = read("cellmix_5batch")
    adata.obs[LABEL], adata.obs[BATCH] = adata.obs["cell_type"].astype(str), adata.obs["batch"].astype(str)
    is_query = (adata.obs[BATCH] == plate).to_numpy()
    return adata[~is_query].copy(), adata[is_query].copy()
