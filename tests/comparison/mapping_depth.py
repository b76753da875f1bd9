"""Mapping of cells that are shallower or deeper than the reference, with depth matched or not: the tuning protocol.

    SCANPY_SCVI_DATA=... python tests/comparison/mapping_depth.py [--seeds 0 1 2]

A random half of each set is the reference, less one type; the other half the query, both with 2,000 genes. Counts of
one of them are thinned; or the query is cut down to the quarter of types with the largest or smallest cells. Printed
for each: label accuracy over known types, and area under the ROC curve of the distance for the type that the reference
lacks.
"""

from __future__ import annotations

import argparse
import warnings
from typing import TYPE_CHECKING

import numpy as np
import scanpy as sc
import torch
from mapping_data import logged, read
from sklearn.metrics import roc_auc_score

import scanpy_scvi as sv

if TYPE_CHECKING:
    import anndata as ad

LABELS = {"paul15": "lineage", "mouse_bladder": "cell_type", "worm_embryo": "cell_type"}
CASES = [(1, 1, ""), (1, 0.7, ""), (1, 0.5, ""), (0.6, 1, ""), (1, 1, "large"), (1, 0.5, "large"), (1, 0.5, "small")]
"""Share of counts that reference and query keep, and the types of the query."""


def thinned(adata: ad.AnnData, share: float, rng: np.random.Generator) -> ad.AnnData:
    """Each count kept with a probability."""
    adata = adata.copy()
    adata.X = adata.X.tocsr().copy()
    adata.X.data = rng.binomial(adata.X.data.astype(int), share).astype(np.float32)
    adata.X.eliminate_zeros()
    return adata


def fitted(reference: ad.AnnData, seed: int) -> ad.AnnData:
    """The reference's most variable genes, and a default fit."""
    sc.pp.filter_genes(reference, min_cells=3)
    table = sc.pp.highly_variable_genes(logged(reference), n_top_genes=2000, inplace=False)
    reference = reference[:, table["highly_variable"].to_numpy()].copy()
    reference = reference[np.asarray(reference.X.sum(1)).ravel() > 0].copy()
    sv.tl.scvi(reference, normalized=False, progress=False, random_state=seed)
    return reference


def references(reference: ad.AnnData) -> dict[str, ad.AnnData]:
    """The reference without its depth, with one depth for all cells, and as it is."""
    without, same = reference.copy(), reference.copy()
    del without.uns["scvi"]["depth"]
    depth = np.zeros_like(reference.uns["scvi"]["depth"])
    depth[0] = np.log(np.asarray(reference.X.sum(1)).ravel()).mean()
    same.uns["scvi"]["depth"] = depth
    return {"not matched": without, "mean depth": same, "depth of like cells": reference}


def scores(reference: ad.AnnData, query: ad.AnnData, withheld: str, *, update: bool) -> tuple[float, float]:
    """Accuracy over known types, and area under the curve for the withheld one."""
    query = query.copy()
    sv.tl.map_query(query, reference, batch_key="batch", update_weights=update, progress=False)
    sv.tl.transfer_labels(query, reference, "label", embedding=None)
    truth = query.obs["label"].to_numpy()
    new = truth == withheld
    right = query.obs["label_pred"].astype(str).to_numpy() == truth
    return float(right[~new].mean()), float(roc_auc_score(new, query.obs["scvi_ref_dist"]))


def run(name: str, seed: int) -> None:
    """Print all cases of one data set."""
    rng = np.random.default_rng(100 + seed)
    adata = read(name)
    adata.obs = adata.obs[[LABELS[name]]].astype(str).set_axis(["label"], axis=1)
    adata.obs["batch"] = "query"
    labels, log_total = adata.obs["label"].to_numpy(), np.log(np.asarray(adata.X.sum(1)).ravel())
    share = adata.obs["label"].value_counts(normalize=True)
    candidates = sorted(share[(share > 0.03) & (share < 0.25)].index)
    withheld = candidates[rng.permutation(len(candidates))[seed % len(candidates)]]
    is_query = rng.permutation(adata.n_obs) < adata.n_obs // 2
    by_size = sorted(share[share > 0.02].index.drop(withheld), key=lambda c: log_total[labels == c].mean())
    n = max(2, len(by_size) // 4)
    types = {"": list(share.index), "large": [*by_size[-n:], withheld], "small": [*by_size[:n], withheld]}
    fits = {p: fitted(thinned(adata[~is_query & (labels != withheld)], p, rng), seed) for p in (1, 0.6)}
    for of_reference, of_query, kind in CASES:
        reference = fits[of_reference]
        query = thinned(adata[is_query & np.isin(labels, types[kind])], of_query, rng)[:, reference.var_names].copy()
        query = query[np.asarray(query.X.sum(1)).ravel() > 0].copy()
        for how, source in references(reference).items():
            for update in (False, True):
                found = scores(source, query, withheld, update=update)
                cells = (name, seed, of_reference, of_query, kind, how, update, *(f"{x:.3f}" for x in found))
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def main() -> None:
    """Print a row for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(LABELS), choices=list(LABELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")  # advice of scanpy
    sc.settings.verbosity = 0
    for seed in args.seeds:
        for name in args.data:
            run(name, seed)


if __name__ == "__main__":
    main()
