"""Seconds per epoch and of whole runs, ours and scvi-tools', in one process, alternating, with the same threads.

    OMP_NUM_THREADS=1 SCANPY_SCVI_DATA=... python tests/benchmark/speed.py --out speed.jsonl --threads 1 \
        --data hspc_4libraries hspc_4libraries_all simulated --cells 1000 3000 10000 --genes 2000 12000
    OMP_NUM_THREADS=1 SCANPY_SCVI_DATA=... python tests/benchmark/speed.py --out whole.jsonl --whole
    python tests/benchmark/speed_report.py speed.jsonl whole.jsonl --plot speed.png

**Per epoch.** Systems, for each likelihood, with minibatches of 128 and 90 % of the cells trained on:

- `peer`: `SCVI(adata)`, whose default is one layer of 128 and 10 latent dimensions;
- `same`: `tl.scvi` with the peer's sizes, no covariates in the encoder, and no early stopping;
- `ours`: `tl.scvi` with its own default sizes, no early stopping.

Times lie between ends of epochs, from the end of the first on, so nothing that happens once counts. Ours hold what our
defaults do in an epoch beside training: the bound of the held-out cells, averaged weights, a copy of them. One line for
each (case, system, round): medians over the epochs of a round, wall and CPU seconds.

**`--whole`.** Whole default calls on four real data sets, 2,000 genes, all cells: `SCVI.setup_anndata`, `SCVI`,
`train`, `get_latent_representation` against `tl.scvi`, once with all its defaults (the normalized layer too), once
without that layer.

Simulated counts have the density of real data (`_counts.py`). Every line tells its density, threads, and the time of
one matrix product around it.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np
import scanpy as sc
import torch
from _common import Clock, append_line, gemm_ms, read_lines
from _counts import simulated_file
from quality_data import TASKS, load

if TYPE_CHECKING:
    from collections.abc import Iterator

    import anndata as ad

PEER_SIZES = {"n_layers": 1, "n_latent": 10, "n_hidden": 128, "encode_covariates": False}
SYSTEMS = ("peer", "same", "ours")
WHOLE = ("cellmix_5batch", "kang_pbmc_ifnb", "hspc_4libraries", "pbmc_facs")
TIMED_CELLS = 20_000
"""Epochs are timed until they have seen so many cells, at least one and at most ten."""


class Case(NamedTuple):
    """What both sides fit."""

    data: str
    cells: int
    genes: int
    likelihood: str


class Marks:
    """Wall and CPU time at the ends of epochs."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []

    def add(self) -> None:
        """Note the time."""
        self.times.append((time.perf_counter(), time.process_time()))

    def per_epoch(self) -> dict[str, float]:
        """Medians over the epochs after the first."""
        wall, cpu = np.median(np.diff(np.array(self.times), axis=0), axis=0)
        return {"wall": float(wall), "cpu": float(cpu), "epochs_timed": len(self.times) - 1}


def fit_peer(adata: ad.AnnData, likelihood: str, epochs: int, seed: int) -> Marks:
    """Fit scvi-tools with its defaults."""
    import scvi
    from lightning.pytorch import Callback

    marks = Marks()

    class Watch(Callback):
        def on_train_epoch_end(self, *_: object) -> None:
            marks.add()

    scvi.settings.seed = seed
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
    model = scvi.model.SCVI(adata, gene_likelihood=likelihood)
    model.train(epochs, accelerator="cpu", enable_progress_bar=False, callbacks=[Watch()])
    return marks


def fit_ours(adata: ad.AnnData, likelihood: str, epochs: int, seed: int, **sizes: object) -> Marks:
    """Fit `tl.scvi`, with marks from the hook of its training loop."""
    import scanpy_scvi as sv
    from scanpy_scvi.tl import _fit as caller
    from scanpy_scvi.training import fit

    marks = Marks()

    def watched(*args: object, on_epoch, **options: object):
        def watch(record: object) -> None:
            on_epoch(record)
            marks.add()

        return fit(*args, on_epoch=watch, **options)

    options = {"likelihood": likelihood, "max_epochs": epochs, "early_stopping": False, "random_state": seed}
    caller.fit = watched
    try:
        sv.tl.scvi(adata, "batch", mask_var=None, normalized=False, progress=False, **options, **sizes)
    finally:
        caller.fit = fit
    return marks


def time_epochs(case: Case, adata: ad.AnnData, system: str, seed: int) -> dict[str, float]:
    """Seconds per epoch of one system in one round."""
    epochs = 1 + int(np.clip(TIMED_CELLS // case.cells, 1, 10))
    before = gemm_ms()
    if system == "peer":
        marks = fit_peer(adata, case.likelihood, epochs, seed)
    else:
        marks = fit_ours(adata, case.likelihood, epochs, seed, **(PEER_SIZES if system == "same" else {}))
    return marks.per_epoch() | {"gemm_ms": (before + gemm_ms()) / 2}


def time_whole(adata: ad.AnnData, data: str, system: str, seed: int) -> dict[str, float]:
    """Seconds of a whole default run."""
    import scvi

    import scanpy_scvi as sv

    batch_key, before = TASKS[data].batch_key, gemm_ms()
    scvi.settings.seed = seed
    clock = Clock()
    if system == "peer":
        scvi.model.SCVI.setup_anndata(adata, batch_key=batch_key)
        model = scvi.model.SCVI(adata)
        model.train(accelerator="cpu", enable_progress_bar=False)
        model.get_latent_representation()
    else:
        layer = {} if system == "ours" else {"normalized": False}
        sv.tl.scvi(adata, batch_key, random_state=seed, progress=False, **layer)
    return {"wall": clock.wall, "cpu": clock.cpu, "gemm_ms": (before + gemm_ms()) / 2}


def datasets(names: list[str], cells: list[int], genes: list[int]) -> Iterator[tuple[str, ad.AnnData]]:
    """The data asked for; those of `name_all` with all genes, others with 2,000."""
    for name in names:
        if name == "simulated":
            for n_genes in genes:
                for n_cells in cells:
                    yield name, sc.read_h5ad(simulated_file(n_cells, n_genes))
        elif name.endswith("_all"):
            yield name, sc.read_h5ad(Path(os.environ["SCANPY_SCVI_DATA"]) / f"{name.removesuffix('_all')}.h5ad")
        else:
            yield name, load(TASKS[name])


def run(args: argparse.Namespace) -> None:
    """Measure what is missing from the output file."""
    keys = ("data", "cells", "genes", "likelihood", "threads", "system", "round", "whole")
    done = {tuple(line[key] for key in keys) for line in read_lines(args.out)}
    systems = args.systems or (["peer", "ours", "ours without the layer"] if args.whole else SYSTEMS)
    for name, adata in datasets(args.data or (WHOLE if args.whole else ["simulated"]), args.cells, args.genes):
        density = round(adata.X.nnz / (adata.n_obs * adata.n_vars), 4)
        for likelihood in ["default"] if args.whole else args.likelihoods:
            case = Case(name, *adata.shape, likelihood)
            for i in range(args.rounds):
                for system in systems:
                    line = {**case._asdict(), "threads": args.threads, "system": system, "round": i}
                    line["whole"] = args.whole
                    if tuple(line[key] for key in keys) in done:
                        continue
                    copy = adata.copy()  # neither side sees what the other wrote
                    found = time_whole(copy, name, system, i) if args.whole else time_epochs(case, copy, system, i)
                    append_line(args.out, line | {"density": density} | found)


def main() -> None:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", nargs="+")
    parser.add_argument("--cells", type=int, nargs="+", default=[1000, 3000, 10_000, 30_000, 100_000])
    parser.add_argument("--genes", type=int, nargs="+", default=[2000, 12_000])
    parser.add_argument("--likelihoods", nargs="+", default=["nb", "zinb"])
    parser.add_argument("--systems", nargs="+")
    parser.add_argument("--whole", action="store_true")
    args = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != str(args.threads):
        parser.error(f"set OMP_NUM_THREADS={args.threads}: libraries read it when they start")
    torch.set_num_threads(args.threads)
    numba.set_num_threads(min(args.threads, numba.config.NUMBA_NUM_THREADS))
    warnings.filterwarnings("ignore")  # the peer's advice on workers and devices
    run(args)


if __name__ == "__main__":
    main()
