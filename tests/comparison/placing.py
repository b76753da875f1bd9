"""Hidden cells placed on a map, by our network, `sc.tl.ingest` and neighbours: the table of the mapping page.

    SCANPY_SCVI_DATA=... python tests/comparison/placing.py --out placing.jsonl [--data pbmc_facs ...] [--seeds 0 1 2]

A map of all cells is computed from the latent space of `tl.scvi`; then the places of a fifth of the cells are hidden,
and each system finds them from the latent states of those cells and the places of the others. CPU seconds of 10,000
cells are taken with seed 0. Appends one JSON line for each (data set, map, seed, system) and skips what is there
already. With `--table` it prints the file as a table in Markdown.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import scanpy as sc
import torch
from result_lines import append_line, read_lines
from sklearn.neighbors import NearestNeighbors

import scanpy_scvi as sv

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = {
    "pbmc_facs": ("cell_type", None),
    "cellmix_5batch": ("cell_type", "batch"),
    "kang_pbmc_ifnb": ("cell_type", "batch"),
    "worm_embryo": ("cell_type", "batch"),
    "paul15": ("cell_type", None),
    "mouse_bladder": ("cell_type", None),
}
"""Columns of labels and batches; defaults were chosen on the last three."""
REPORTED = list(DATA)[:3]
MAPS = {"X_umap": "UMAP", "X_tsne": "t-SNE"}
N_NEIGHBORS, N_TIMED, HIDDEN = 15, 10_000, 0.2


def load(name: str, seed: int, basis: str) -> ad.AnnData:
    """Latent space, map and labels of all cells."""
    label, batch = DATA[name]
    adata = ad.read_h5ad(Path(os.environ["SCANPY_SCVI_DATA"]) / f"{name}.h5ad")
    logged = sc.pp.log1p(sc.pp.normalize_total(adata, copy=True), copy=True)
    sc.pp.highly_variable_genes(logged, n_top_genes=2000)
    adata = adata[:, logged.var["highly_variable"]].copy()
    sv.tl.scvi(adata, batch, random_state=seed, normalized=False, progress=False)
    if basis == "X_umap":
        sc.pp.neighbors(adata, use_rep="X_scvi", random_state=seed)
        sc.tl.umap(adata, random_state=seed)
    else:
        sc.tl.tsne(adata, use_rep="X_scvi", random_state=seed)
    adata.obs["label"] = adata.obs[label].astype(str)
    return adata


def network(reference: ad.AnnData, query: ad.AnnData, basis: str, seed: int) -> Callable[[ad.AnnData], None]:
    """`tl.learn_embedding`; then `tl.place_cells`."""
    sv.tl.learn_embedding(reference, basis, random_state=seed)
    return lambda cells: sv.tl.place_cells(cells, reference, basis=basis)


def ingest(reference: ad.AnnData, query: ad.AnnData, basis: str, seed: int) -> Callable[[ad.AnnData], None]:
    """`sc.tl.ingest` with the neighbours of the reference in the same latent space."""
    sc.pp.neighbors(reference, use_rep="X_scvi", random_state=seed)
    return lambda cells: sc.tl.ingest(cells, reference, embedding_method="umap")


def neighbours(reference: ad.AnnData, query: ad.AnnData, basis: str, seed: int) -> Callable[[ad.AnnData], None]:
    """Plain mean of the places of the nearest cells in the latent space."""
    index = NearestNeighbors(n_neighbors=N_NEIGHBORS).fit(reference.obsm["X_scvi"])

    def place(cells: ad.AnnData) -> None:
        found = index.kneighbors(cells.obsm["X_scvi"], return_distance=False)
        cells.obsm[basis] = reference.obsm[basis][found].mean(1)

    return place


SYSTEMS = {"network": network, "sc.tl.ingest": ingest, "mean of 15 neighbours": neighbours}


def measure(adata: ad.AnnData, basis: str, seed: int, system: str) -> dict[str, float]:
    """Hide cells, place them, compare; seconds too."""
    order = np.random.default_rng(seed).permutation(adata.n_obs)
    n = round(HIDDEN * adata.n_obs)
    truth, reference = adata[order[:n]].copy(), adata[order[n:]].copy()
    query = truth.copy()
    del query.obsm[basis]
    start = time.process_time()
    place = SYSTEMS[system](reference, query, basis, seed)
    fitted = time.process_time()
    many = query[np.random.default_rng(seed).integers(0, n, N_TIMED)].copy()
    many.obs_names_make_unique()
    place(query)
    seconds = {"fit": fitted - start}
    if seed == 0:
        before = time.process_time()
        place(many)
        seconds["place"] = time.process_time() - before
    return score(reference.obsm[basis], truth.obsm[basis], query.obsm[basis], reference, truth) | seconds


def score(known: np.ndarray, there: np.ndarray, placed: np.ndarray, reference: ad.AnnData, truth: ad.AnnData) -> dict:
    """Labels told by the neighbours on the map, displacement by the map's spread, and cells where none should be."""
    index = NearestNeighbors(n_neighbors=N_NEIGHBORS).fit(known)
    labels, codes = np.unique(reference.obs["label"], return_inverse=True)

    def accuracy(places: np.ndarray) -> float:
        votes = codes[index.kneighbors(places, return_distance=False)]
        told = labels[[np.bincount(v, minlength=len(labels)).argmax() for v in votes]]
        return float((told == truth.obs["label"].to_numpy()).mean())

    far = np.linalg.norm(placed - there, axis=1) / np.sqrt(known.var(0).sum())
    usual = np.quantile(index.kneighbors(n_neighbors=1)[0], 0.99)
    return {
        "map": accuracy(there),
        "accuracy": accuracy(placed),
        "median": float(np.median(far)),
        "mean": float(far.mean()),
        "alone": float((index.kneighbors(placed, n_neighbors=1)[0] > usual).mean()),
    }


def table(lines: list[dict]) -> str:
    """Means over seeds."""
    columns = {"map": 3, "accuracy": 3, "median": 3, "mean": 3, "alone": 3, "fit": 1, "place": 2}
    head = (
        "| data | map | system | seeds | accuracy, the map itself | accuracy, placed | median displacement | mean "
        "| in empty places | s, fit | s, 10,000 cells |"
    )
    rows = [head, "|" + "---|" * 11]
    for data, basis, system in dict.fromkeys((x["data"], x["basis"], x["system"]) for x in lines):
        found = [x for x in lines if (x["data"], x["basis"], x["system"]) == (data, basis, system)]
        numbers = [f"{np.mean([x[key] for x in found if key in x]):.{digits}f}" for key, digits in columns.items()]
        rows.append("| " + " | ".join([f"`{data}`", MAPS[basis], system, str(len(found)), *numbers]) + " |")
    return "\n".join(rows)


def main() -> None:
    """Measure what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", nargs="+", default=REPORTED, choices=list(DATA))
    parser.add_argument("--maps", nargs="+", default=list(MAPS), choices=list(MAPS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")  # advice on dependencies
    sc.settings.verbosity = 0
    lines = read_lines(args.out)
    if args.table:
        print(table(sorted(lines, key=lambda x: (list(DATA).index(x["data"]), list(MAPS).index(x["basis"])))))
        return
    done = {(x["data"], x["basis"], x["seed"], x["system"]) for x in lines}
    for basis in args.maps:
        systems = [s for s in SYSTEMS if basis == "X_umap" or s != "sc.tl.ingest"]
        for seed in args.seeds:
            for data in args.data:
                missing = [s for s in systems if (data, basis, seed, s) not in done]
                adata = load(data, seed, basis) if missing else None
                for system in missing:
                    line = {"data": data, "basis": basis, "seed": seed, "system": system}
                    append_line(args.out, line | measure(adata, basis, seed, system))


if __name__ == "__main__":
    main()
