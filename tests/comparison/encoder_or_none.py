"""scVI and the same model without an encoder, from few cells: the table of {doc}`choosing`.

    SCANPY_SCVI_DATA=... OMP_NUM_THREADS=1 python tests/comparison/encoder_or_none.py --out encoder.jsonl
    python tests/comparison/encoder_or_none.py --out encoder.jsonl --table

`tl.scvi` and `tl.dgd` with their defaults, the same 20 latent dimensions and the same 2,000 genes, are fitted to 500
and to 2,000 cells. Up to 1,000 other cells, the same for both sizes, are mapped by `tl.map_query(update_weights=False)`
and scored: their -log p(x), importance weighted with 100 draws from what the encoder says or from a normal about the
best state; what is predicted of one half of their molecules from the other half; the label that the nearest 15
training cells have; where batches are to mix, the share of neighbours of a cell's own batch, beside that of perfect
mixing. CPU seconds and milliseconds of one thread.

Appends one JSON line for each (data, cells, seed, system) and skips lines that are there already.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scanpy as sc
import torch
from family_data import halves, nats_per_molecule
from quality_data import TASKS, Task, load
from result_lines import append_line, read_lines
from sklearn.neighbors import KNeighborsClassifier

import scanpy_scvi as sv
from scanpy_scvi.metrics import batch_mixing, ideal_batch_mixing
from scanpy_scvi.posterior import held_out_bound
from scanpy_scvi.store.load import load as load_fit

if TYPE_CHECKING:
    import anndata as ad

REPORTED = ["pbmc_facs", "pbmc3k", "kang_pbmc_ifnb", "hspc_4libraries"]
SYSTEMS = ["scvi", "dgd"]
SIZES = [500, 2000]
MOST_HELD_OUT, LEAST_HELD_OUT = 1000, 500
N_LATENT = 20
N_DRAWS = 100
N_NEIGHBORS = 15


def split(adata: ad.AnnData, n_cells: int, seed: int) -> tuple[ad.AnnData, ad.AnnData] | None:
    """Cells to fit and cells held out, these the same for every size; nothing where the data set is too small."""
    order = np.random.default_rng(seed).permutation(adata.n_obs)
    room = adata.n_obs - max(SIZES)
    n_test = min(MOST_HELD_OUT, room if room >= LEAST_HELD_OUT else MOST_HELD_OUT)
    if n_test + n_cells > adata.n_obs:
        return None
    return adata[order[n_test : n_test + n_cells]].copy(), adata[order[:n_test]].copy()


def measure(task: Task, train: ad.AnnData, test: ad.AnnData, system: str, seed: int) -> dict[str, float]:
    """Fit, map, score."""
    half, hidden = halves(test, seed)
    options = {"key_added": "fit", "random_state": seed, "normalized": False, "progress": False}
    start = time.process_time()
    getattr(sv.tl, system)(train, task.batch_key, n_latent=N_LATENT, **options)
    fitted = time.process_time()
    sv.tl.map_query(test, train, key="fit", update_weights=False, progress=False)
    mapped = time.process_time()
    sv.tl.map_query(half, train, key="fit", update_weights=False, progress=False)
    shares = sv.tl.normalized_expression(
        half, key="fit", library_size=1, transform_batch="observed", inplace=False
    ).to_numpy()
    fit = load_fit(test, "fit")
    bound = held_out_bound(fit.model, fit.read(test), n_samples=N_DRAWS, random_state=seed, device=torch.device("cpu"))
    line = {
        "loss": -float(bound.log_likelihood.mean()),
        "molecules": nats_per_molecule(shares, hidden, np.asarray(train.X.sum(0)).ravel() + 0.5),
        "fit_seconds": fitted - start,
        "map_ms": 1e3 * (mapped - fitted) / test.n_obs,
        "held_out": test.n_obs,
    }
    if task.label_key is not None:
        known, labels = (x.obs[task.label_key].astype(str) for x in (train, test))
        vote = KNeighborsClassifier(N_NEIGHBORS).fit(train.obsm["X_fit"], known)
        line["label"] = float((vote.predict(test.obsm["X_fit"]) == labels).mean())
    if task.score_mixing:
        batches = test.obs[task.batch_key]
        line["mixing"] = batch_mixing(test.obsm["X_fit"], batches)
        line["mixing_ideal"] = ideal_batch_mixing(batches)
    return line


COLUMNS = {"loss": 1, "molecules": 4, "label": 3, "mixing": 2, "fit_seconds": 0, "map_ms": 2}
HEAD = [
    "-log p(x), nats a cell",
    "nats a hidden molecule",
    "label told",
    "same batch",
    "CPU s, fit",
    "CPU ms, map a cell",
]


def table(lines: list[dict]) -> str:
    """Means over seeds, with the standard deviation where seeds matter."""
    rows = ["| data | cells | system | seeds | " + " | ".join(HEAD) + " |", "|" + "---|" * (4 + len(HEAD))]
    for data, cells, system in dict.fromkeys((x["data"], x["cells"], x["system"]) for x in lines):
        found = [x for x in lines if (x["data"], x["cells"], x["system"]) == (data, cells, system)]
        numbers = []
        for key, digits in COLUMNS.items():
            values = [x[key] for x in found if key in x]
            spread = f" ± {np.std(values):.{digits}f}" if key in ("loss", "label") else ""
            if key == "mixing" and values:
                spread = f" (ideal {np.mean([x['mixing_ideal'] for x in found]):.2f})"
            numbers.append(f"{np.mean(values):.{digits}f}{spread}" if values else "–")
        rows.append("| " + " | ".join([f"`{data}`", f"{cells:,}", system, str(len(found)), *numbers]) + " |")
    return "\n".join(rows)


def main() -> None:
    """Measure what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", nargs="+", default=REPORTED, choices=list(TASKS))
    parser.add_argument("--cells", nargs="+", type=int, default=SIZES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")  # advice on dependencies
    sc.settings.verbosity = 0
    lines = read_lines(args.out)
    if args.table:
        lines = [x for x in lines if x["data"] in args.data]
        print(table(sorted(lines, key=lambda x: (args.data.index(x["data"]), x["cells"], SYSTEMS.index(x["system"])))))
        return
    done = {(x["data"], x["cells"], x["seed"], x["system"]) for x in lines}
    sv.tl.scvi(sv.datasets.simulate(n_cells=100), max_epochs=1, progress=False)  # what is loaded or compiled once
    for seed in args.seeds:
        for name in args.data:
            adata = load(TASKS[name])
            for n_cells in args.cells:
                for system in SYSTEMS:
                    cells = split(adata, n_cells, seed)
                    if (name, n_cells, seed, system) in done or cells is None:
                        continue
                    line = {"data": name, "cells": n_cells, "seed": seed, "system": system}
                    line |= measure(TASKS[name], *cells, system, seed)
                    print(line, flush=True)
                    append_line(args.out, line)


if __name__ == "__main__":
    main()
