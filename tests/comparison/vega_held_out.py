"""Interferon activities of VEGA in a cell type that the fit did not see: the tables of the page on factors.

    SCANPY_SCVI_DATA=... OMP_NUM_THREADS=1 python tests/comparison/vega_held_out.py --out vega.jsonl [--seeds 0 1 2]
    python tests/comparison/vega_held_out.py --out vega.jsonl --table

Blood cells of `kang_pbmc_ifnb`, half of them with interferon beta. Every coarse cell type is left out once, either all
its cells or its stimulated ones. VEGA is fitted to the rest, and the cells left out are mapped to that fit. The set
that `rank_activities` puts first in the cells of the fit, and a threshold of its activity that separates conditions in
the other types, then have to tell the conditions of the type left out.

Appends one JSON line for each (collection, protocol, cell type, seed) and skips lines that are there already.
"""

from __future__ import annotations

import argparse
import itertools
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from result_lines import append_line, read_lines
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

import scanpy_scvi as sv

DATA = Path(os.environ.get("SCANPY_SCVI_DATA", "."))
TOP = {"reactome": 50, "hallmark": 10}
"""Sets that are compared between two models."""
PROTOCOLS = ("whole type", "stimulated cells")
"""What of a cell type is left out of the fit."""
TYPE = "cell_type_coarse"


def cells() -> ad.AnnData:
    """Cells of a known type, with log-normalised expression in a layer."""
    adata = sc.read_h5ad(DATA / "kang_pbmc_ifnb.h5ad")
    adata = adata[adata.obs[TYPE] != "unassigned"].copy()
    adata.layers["log"] = sc.pp.log1p(sc.pp.normalize_total(adata, target_sum=1e4, copy=True), copy=True).X
    return adata


def fitted(adata: ad.AnnData, collection: str, seed: int) -> ad.AnnData:
    """The same cells with a fit and the sets ranked between the conditions of all of them."""
    sv.tl.vega(adata, DATA / f"{collection}.gmt", min_genes=10, normalized=False, progress=False, random_state=seed)
    return adata


def ranked(adata: ad.AnnData) -> list[str]:
    """Sets by how much their activities differ between the conditions."""
    sv.tl.rank_activities(adata, "condition", groups=["stim"], reference="ctrl")
    return sv.get.rank_activities_df(adata)["names"].tolist()


def activity(adata: ad.AnnData, name: str) -> np.ndarray:
    """Activities of a set, one column."""
    return adata.obsm["X_vega"][:, [list(adata.uns["vega"]["gene_sets"]).index(name)]]


def genes_of(adata: ad.AnnData, name: str) -> list[str]:
    """Genes of a set that the model has."""
    column = list(adata.uns["vega"]["gene_sets"]).index(name)
    return adata.var_names[np.nan_to_num(adata.varm["vega_loadings"][:, column]) != 0].tolist()


def stimulated(adata: ad.AnnData) -> np.ndarray:
    return (adata.obs["condition"] == "stim").to_numpy()


def tell(name: str, x: np.ndarray, known: np.ndarray, new: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Learn to tell conditions by the features `x` of known cells, and tell those of new ones."""
    model = LogisticRegression(C=1e3, max_iter=2000).fit(x[known], truth[known])
    score = model.decision_function(x[new])
    found = {"accuracy": balanced_accuracy_score(truth[new], score > 0), "auroc": roc_auc_score(truth[new], score)}
    return {f"{name} {key}": float(value) for key, value in found.items()}


def plain(adata: ad.AnnData, genes: list[str]) -> dict[str, np.ndarray]:
    """Scores of a set without a model: the mean of log-normalised expression, and scanpy's score."""
    log = sc.AnnData(adata.layers["log"], obs=adata.obs[[]].copy(), var=adata.var[[]].copy())
    sc.tl.score_genes(log, genes, score_name="score", random_state=0)
    return {
        "mean": np.asarray(log[:, genes].X.mean(1)).reshape(-1, 1),
        "score_genes": log.obs[["score"]].to_numpy(),
    }


@lru_cache(maxsize=4)
def whole(collection: str, seed: int) -> ad.AnnData:
    """Fit to all cells."""
    return fitted(cells(), collection, seed)


def in_sample(adata: ad.AnnData, held_out: np.ndarray) -> dict[str, Any]:
    """The fit to all cells, with set and threshold from the very cells that are scored."""
    own = adata[held_out].copy()
    order, truth = ranked(own), stimulated(own)
    every = np.ones(own.n_obs, bool)
    return tell("in sample", activity(own, order[0]), every, every, truth) | {"order": order}


def run(collection: str, protocol: str, left_out: str, seed: int) -> dict[str, Any]:
    """Leave cells of a type out, fit, map, and tell the conditions of that type's cells."""
    adata = whole(collection, seed)
    held_out, truth = (adata.obs[TYPE] == left_out).to_numpy(), stimulated(adata)
    away = held_out & truth if protocol == "stimulated cells" else held_out
    bare = cells()
    reference, query = fitted(bare[~away].copy(), collection, seed), bare[away].copy()
    first = ranked(reference)[0]
    sv.tl.map_query(query, reference, key="vega", progress=False)
    z = np.empty((adata.n_obs, 1))
    z[~away], z[away] = activity(reference, first), activity(query, first)
    own = query if protocol == "whole type" else both_parts(reference, query, left_out)
    mine, full = ranked(own), in_sample(adata, held_out)
    found: dict[str, Any] = {"first": first, "n_cells": int(held_out.sum()), "n_sets": len(mine)}
    found |= shared_sets(collection, seed, held_out, mine, full.pop("order"))
    found |= tell("vega", z, ~held_out, held_out, truth) | full
    for name, x in plain(adata, genes_of(reference, first)).items():
        found |= tell(name, x, ~held_out, held_out, truth)
    log = adata.layers["log"][:, reference.var["vega_modelled"].to_numpy()].toarray()
    pca = PCA(30, random_state=seed).fit(log[~away])
    return found | tell("PCA", pca.transform(log), ~held_out, held_out, truth)


def shared_sets(collection: str, seed: int, held_out: np.ndarray, mine: list[str], full: list[str]) -> dict[str, Any]:
    """Share of the first sets of the type that both models have, and that two models of all cells have."""
    k = TOP[collection]
    others = ranked(whole(collection, (seed + 1) % 3)[held_out].copy())
    return {
        "first of type": mine[0],
        "shared": len(set(mine[:k]) & set(full[:k])) / k,
        "shared by seeds": len(set(others[:k]) & set(full[:k])) / k,
    }


def both_parts(reference: ad.AnnData, query: ad.AnnData, left_out: str) -> ad.AnnData:
    """Cells of a type that are partly in the fit and partly mapped to it."""
    both = ad.concat([reference[reference.obs[TYPE] == left_out], query], merge="same")
    both.uns["vega"] = query.uns["vega"]
    return both


def lines(path: Path) -> pd.DataFrame:
    """What was found so far."""
    return pd.DataFrame(read_lines(path))


NAMES = ["vega", "in sample", "mean", "score_genes", "PCA"]
HEADER = ["type", "cells", *NAMES, "AUROC of vega", "AUROC of mean", "shared", "shared by seeds"]


def cells_of(rows: pd.DataFrame) -> list[str]:
    """Format the means of some lines."""
    numbers = [rows[f"{name} accuracy"].mean() for name in NAMES]
    numbers += [rows[f"{name} auroc"].mean() for name in ("vega", "mean")]
    return [f"{x:.3f}" for x in numbers] + [f"{rows[name].mean():.2f}" for name in ("shared", "shared by seeds")]


def tables(found: pd.DataFrame) -> str:
    """Means over seeds, in Markdown."""
    text = []
    for (collection, protocol), part in found.groupby(["collection", "protocol"], sort=False):
        firsts = ", ".join(f"{name} ({n})" for name, n in part["first"].value_counts().items())
        text += [
            f"\n{collection}, left out: {protocol}; seeds {sorted(part['seed'].unique().tolist())}; first: {firsts}\n"
        ]
        text += ["| " + " | ".join(HEADER) + " |", "|---" * len(HEADER) + "|"]
        types = part.groupby("cell_type")
        for cell_type, rows in types:
            text.append(f"| {cell_type} | {rows['n_cells'].iloc[0]} | " + " | ".join(cells_of(rows)) + " |")
        text.append("| mean of types | | " + " | ".join(cells_of(types.mean(numeric_only=True))) + " |")
        spread = part.groupby("cell_type")["vega accuracy"].std().max()
        text.append(f"\nLargest standard deviation over seeds of the first column: {spread:.3f}.")
    return "\n".join(text)


def main() -> None:
    """Run what is missing, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("vega_held_out.jsonl"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--collections", nargs="+", default=["hallmark", "reactome"])
    parser.add_argument("--protocols", nargs="+", default=list(PROTOCOLS))
    parser.add_argument("--types", nargs="+", default=None)
    parser.add_argument("--table", action="store_true", help="print the tables of what is there")
    args = parser.parse_args()
    sc.settings.verbosity = 0
    if args.table:
        print(tables(lines(args.out)))
        return
    keys = ["collection", "protocol", "cell_type", "seed"]
    done = (
        {tuple(row) for row in lines(args.out).get(keys, pd.DataFrame()).itertuples(index=False)}
        if args.out.exists()
        else set()
    )
    types = args.types or sorted(cells().obs[TYPE].unique())
    for case in itertools.product(args.collections, args.protocols, types, args.seeds):
        if case not in done:
            found = dict(zip(keys, case, strict=True)) | run(*case)
            append_line(args.out, found)


if __name__ == "__main__":
    main()
