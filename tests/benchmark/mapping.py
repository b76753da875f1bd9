"""Seconds to map 10,000 cells to a reference, ours and scvi-tools', in one process, alternating, with one thread.

    OMP_NUM_THREADS=1 SCANPY_SCVI_DATA=... python tests/benchmark/mapping.py --out mapping.jsonl --rounds 3
    python tests/benchmark/mapping.py --out mapping.jsonl --report

The reference is fitted to three libraries of `hspc_4libraries` (2,000 genes); the query is the fourth, its cells drawn
with replacement until there are 10,000. `forward` gives the query the name of a batch that the reference knows, so that
nothing is learned; `new batch` its own. Systems:

- `peer`: `SCVI.load_query_data`, `train(plan_kwargs={"weight_decay": 0})` with its default number of epochs where the
  batch is new, `get_latent_representation`; the model is `SCVI(adata)`;
- `ours`: `tl.map_query`; the model is `tl.scvi(adata, "batch")`;
- `same`: the same with the peer's sizes and likelihood, and no covariates in the encoder.

The references' own fits are not timed, and the peer's is short, as the time of a mapping does not depend on it. CPU
seconds of the whole call, on a machine that others use. With `--epochs` the peer's training is that long and its time
is scaled up to its default, 400 epochs for 10,000 cells.
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from _common import Clock, append_line, gemm_ms, read_lines
from quality_data import TASKS, load

import scanpy_scvi as sv

N_QUERY = 10_000
PEER_SIZES = {"likelihood": "zinb", "n_layers": 1, "n_latent": 10, "encode_covariates": False}
DEFAULT_EPOCHS = 400
SYSTEMS = ("peer", "ours", "same")


def data() -> tuple:
    """Reference, and query with a new batch; the last library is the query's."""
    adata = load(TASKS["hspc_4libraries"])
    adata.obs["batch"] = adata.obs["batch"].astype(str)
    new = sorted(adata.obs["batch"].unique())[-1]
    rows = np.flatnonzero(adata.obs["batch"] == new)
    rows = np.concatenate([rows, np.random.default_rng(0).choice(rows, N_QUERY - len(rows))])
    query = adata[rows].copy()
    query.obs_names_make_unique()
    return adata[adata.obs["batch"] != new].copy(), query


def map_peer(model: object, query: object, *, train: bool, epochs: int | None) -> dict[str, float]:
    """Seconds of scvi-tools."""
    import scvi

    clock = Clock()
    mapped = scvi.model.SCVI.load_query_data(query, model)
    training = 0.0
    if train:
        inner = Clock()
        mapped.train(max_epochs=epochs, accelerator="cpu", enable_progress_bar=False, plan_kwargs={"weight_decay": 0.0})
        training = inner.cpu
    mapped.is_trained = True
    mapped.get_latent_representation()
    scale = 1.0 if epochs is None else DEFAULT_EPOCHS / epochs
    run = len(mapped.history["train_loss_epoch"]) if train and "train_loss_epoch" in mapped.history else 0
    return {"cpu": clock.cpu + training * (scale - 1), "wall": clock.wall, "epochs": run, "measured_cpu": clock.cpu}


def map_ours(reference: object, query: object) -> dict[str, float]:
    """Seconds of ours."""
    clock = Clock()
    sv.tl.map_query(query, reference, progress=False)
    seconds = {"cpu": clock.cpu, "wall": clock.wall}
    mapping = query.uns["scvi_mapping"]
    return seconds | {"epochs": len(mapping["history"]["epoch"]) if "history" in mapping else 0}


def measure(out: Path, rounds: int, epochs: int | None, systems: list[str]) -> None:
    """Map with all systems, one after the other."""
    import scvi

    reference, query = data()
    models = {}
    if "peer" in systems:
        scvi.settings.seed = 0
        scvi.model.SCVI.setup_anndata(reference, batch_key="batch")
        models["peer"] = scvi.model.SCVI(reference)
        models["peer"].train(5, accelerator="cpu", enable_progress_bar=False)
    for name, sizes in (("ours", {}), ("same", PEER_SIZES)):
        if name in systems:
            models[name] = reference.copy()
            sv.tl.scvi(models[name], "batch", normalized=False, progress=False, **sizes)
            small = query[:200].copy()
            sv.tl.map_query(small, models[name], max_epochs=1, progress=False)  # compile, if need be
    known = query.copy()
    known.obs["batch"] = reference.obs["batch"].iloc[0]
    for seed in range(rounds):
        for task, cells in (("forward", known), ("new batch", query)):
            for system in systems:
                fresh, before = cells.copy(), gemm_ms()
                if system == "peer":
                    seconds = map_peer(models[system], fresh, train=task == "new batch", epochs=epochs)
                else:
                    seconds = map_ours(models[system], fresh)
                line = {"task": task, "system": system, "round": seed, "cells": N_QUERY, "genes": query.n_vars}
                append_line(out, line | seconds | {"gemm_ms": (before + gemm_ms()) / 2, "load": os.getloadavg()[0]})
                print(line | seconds, flush=True)


def report(out: Path) -> None:
    """Print the table of the docs."""
    lines = read_lines(out)
    print(
        "| 10,000 cells × 2,000 genes | rounds | scvi-tools, CPU s | ours, CPU s | ratio | its sizes, CPU s | ratio |"
    )
    print("|---|---|---|---|---|---|---|")
    for task in ("forward", "new batch"):
        cpu = {s: [x["cpu"] for x in lines if x["task"] == task and x["system"] == s] for s in SYSTEMS}
        middle = {s: float(np.median(v)) for s, v in cpu.items() if v}
        peer, rounds = middle["peer"], len(cpu["peer"])
        cells = [f"{middle[s]:.2f} | **{peer / middle[s]:.0f}×**" for s in ("ours", "same")]
        print(f"| {task} | {rounds} | {peer:.1f} | {' | '.join(cells)} |")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    if options.report:
        report(options.out)
        return
    warnings.simplefilter("ignore")  # the peer's advice on workers and devices
    torch.set_num_threads(1)
    measure(options.out, options.rounds, options.epochs, options.systems)


if __name__ == "__main__":
    main()
