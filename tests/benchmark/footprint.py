"""What a default `tl.scvi` needs beside its data: peak memory, and seconds from the call to the first epoch.

    OMP_NUM_THREADS=2 python tests/benchmark/footprint.py memory [--cells 10000 100000 --genes 2000 --epochs 3]
        [--systems ours peer --out memory.jsonl]
    OMP_NUM_THREADS=2 python tests/benchmark/footprint.py latency [--processes 7] [--imports]

**memory.** A new process imports scanpy, torch, numba and scanpy_scvi (with `sv.tl`), reads simulated counts (CSR,
float32, 9 % non-zero), and calls `tl.scvi(normalized=False)`. Reported is the peak of its resident memory (the
kernel's own high-water mark, set back at each step), less what the process had after its imports and less the
counts' arrays. One row a step says what the peak was until there, and what was left. Memory does not depend on the
number of epochs. `--systems peer` measures scvi-tools the same way: imports of scanpy, torch and scvi-tools, setup,
training and the latent. `speed_report.py` fits the growth of what `--out` keeps.

**latency.** A new process imports scanpy and reads 1,000 x 2,000 simulated counts; then it imports torch, timed apart;
then it calls `sv.tl.scvi`. Reported are wall seconds from there to the start of the first epoch (and to steps before
it), and apart what the first epoch took more than the third: kernels that load on first use. The compiled kernels'
cache is warm: the first process is not counted. `--imports` adds the modules that the call itself imports, by time.

Prints JSON lines; the last one holds the answer.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import anndata as ad

    Mark = Callable[[str, str], None]

MIB = 2**20


def resident(field: str = "VmRSS") -> float:
    """Resident memory of this process in MiB, or its high-water mark (`VmHWM`)."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def forget_peak() -> None:
    """Set the high-water mark back to the present (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def memory_child(path: str, epochs: int, system: str) -> dict:
    """Fit in this process and say what it took, step by step."""
    import numba  # noqa: F401
    import scanpy as sc
    import torch

    prepare, fit = (prepare_peer, fit_peer) if system == "peer" else (prepare_ours, fit_ours)
    prepare()
    after_imports = resident()
    adata = sc.read_h5ad(path)
    counts = sum(a.nbytes for a in (adata.X.data, adata.X.indices, adata.X.indptr)) / MIB
    floor, before, rows = after_imports + counts, resident(), []

    def mark(name: str, what: str) -> None:
        peak, left = resident("VmHWM") - floor, resident() - floor
        rows.append({"until": f"{name} {what}", "peak": round(peak), "left": round(left)})
        forget_peak()

    forget_peak()
    start = time.perf_counter()
    fit(adata, epochs, mark)
    seconds = time.perf_counter() - start
    mark("call", "ends")
    return {
        "system": system,
        "cells": adata.n_obs,
        "genes": adata.n_vars,
        "density": round(adata.X.nnz / (adata.n_obs * adata.n_vars), 4),
        "likelihood": "nb",
        "threads": torch.get_num_threads(),
        "epochs": epochs,
        "seconds": round(seconds, 1),
        "after_imports_mib": round(after_imports),
        "counts_mib": round(counts),
        "before_call_above_both_mib": round(before - floor),
        "steps_mib": rows,
        "peak_above_both_mib": max(row["peak"] for row in rows),
    }


def prepare_ours() -> None:
    """Import what a call needs."""
    import scanpy_scvi as sv

    _ = sv.tl


def fit_ours(adata: ad.AnnData, epochs: int, mark: Mark) -> None:
    """Fit with all defaults but the layer."""
    import scanpy_scvi as sv

    watch(mark)
    sv.tl.scvi(adata, "batch", normalized=False, progress=False, max_epochs=epochs)


def prepare_peer() -> None:
    """Import what a call needs."""
    import scvi  # noqa: F401


def fit_peer(adata: ad.AnnData, epochs: int, mark: Mark) -> None:
    """Fit with all defaults but the likelihood."""
    import scvi

    warnings.filterwarnings("ignore")  # its advice on workers and devices
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
    model = scvi.model.SCVI(adata, gene_likelihood="nb")
    mark("train", "begins")
    model.train(epochs, accelerator="cpu", enable_progress_bar=False)
    mark("train", "ends")
    model.get_latent_representation()


def latency_child(path: str) -> dict:
    """Call `tl.scvi` for three epochs in this process and say when what began."""
    import scanpy as sc

    import scanpy_scvi as sv

    adata = sc.read_h5ad(path)
    start = time.perf_counter()
    import torch  # noqa: F401

    torch_import, times = time.perf_counter() - start, {}

    def mark(name: str, what: str) -> None:
        times.setdefault(f"{name} {what}", []).append((time.perf_counter() - start, time.process_time() - cpu))

    start, cpu = time.perf_counter(), time.process_time()
    function = sv.tl.scvi
    mark("imports", "end")
    watch(mark)  # imports nothing that the call does not need
    function(adata, "batch", normalized=False, progress=False, max_epochs=3)
    epochs = [end[0] - begin[0] for begin, end in zip(times["epoch begins"], times["epoch ends"], strict=True)]
    return {
        "torch_import": torch_import,
        "to_first_epoch": times["epoch begins"][0][0],
        "to_first_epoch_cpu": times["epoch begins"][0][1],
        "until_tl_imported": times["imports end"][0][0],
        "until_fit": times["fit begins"][0][0],
        "until_start_from_data": times["start_from_data begins"][0][0],
        "until_started": times["start_from_data ends"][0][0],
        "first_epoch_beyond_third": epochs[0] - epochs[2],
        "third_epoch": epochs[2],
    }


def watch(mark: Mark) -> None:
    """Call `mark` where the steps of a fit begin and end."""
    from scanpy_scvi.tl import _fit as caller
    from scanpy_scvi.training import fit as _  # noqa: F401

    training = sys.modules["scanpy_scvi.training.fit"]  # its package has a function of the same name
    steps = [(caller, name) for name in ("read", "quick_findings", "fit", "latent_moments", "model_entry")]
    for owner, name in [*steps, (training, "start_from_data"), (training._Fit, "_epoch")]:
        setattr(owner, name, watched(name.strip("_"), getattr(owner, name), mark))


def watched(name: str, function: Callable, mark: Mark) -> Callable:
    """Return `function` with marks around it."""

    def call(*args, **kwargs):
        mark(name, "begins")
        result = function(*args, **kwargs)
        mark(name, "ends")
        return result

    return call


def in_new_process(*arguments: str | int | Path, python: tuple[str, ...] = ()) -> tuple[dict, str]:
    """Run this file as a child; return its answer and what it wrote to stderr."""
    command = [sys.executable, *python, __file__, "child", *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def imports_of_the_call(log: str, n: int = 25) -> list[dict]:
    """Modules imported after torch, by their own seconds, from the log of `python -X importtime`."""
    after = re.split(r"\| torch\n", log, maxsplit=1)[1]
    packages: dict[str, int] = {}
    for own, name in re.findall(r"time:\s+(\d+) \|\s+\d+ \|\s*(.*)", after):
        package = ".".join(name.split(".")[:2])
        packages[package] = packages.get(package, 0) + int(own)
    largest = sorted(packages.items(), key=lambda item: -item[1])[:n]
    all_ms = round(sum(packages.values()) / 1e3)
    return [{"all imports of the call, ms": all_ms}, {name: round(own / 1e3, 1) for name, own in largest}]


def memory(args: argparse.Namespace) -> None:
    """Print what each system needs at each size, and keep it."""
    from _common import append_line
    from _counts import simulated_file

    for cells in args.cells or [100_000]:
        path = simulated_file(cells, args.genes)
        for system in args.systems:
            answer, _ = in_new_process("--path", path, "--epochs", args.epochs, "--systems", system)
            if args.out:
                append_line(args.out, answer)
            for row in answer.pop("steps_mib"):
                print(json.dumps(row))
            print(json.dumps(answer))


def latency(args: argparse.Namespace) -> None:
    """Print each process, then medians."""
    from _counts import simulated_file

    path = simulated_file((args.cells or [1000])[0], args.genes)
    rows = [in_new_process("--path", path)[0] for _ in range(args.processes + 1)][1:]
    for row in rows:
        print(json.dumps({k: round(v, 3) for k, v in row.items()}))
    if args.imports:
        for line in imports_of_the_call(in_new_process("--path", path, python=("-X", "importtime"))[1]):
            print(json.dumps(line))
    medians = {key: round(sorted(row[key] for row in rows)[len(rows) // 2], 3) for key in rows[0]}
    print(json.dumps({"processes": len(rows), "medians": medians}))


def main() -> None:
    """Measure one of both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["memory", "latency", "child"])
    parser.add_argument("--cells", type=int, nargs="+")
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--systems", nargs="+", choices=["ours", "peer"])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--processes", type=int, default=7)
    parser.add_argument("--imports", action="store_true")
    parser.add_argument("--path", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.what == "child":  # a memory child is told its system
        answer = memory_child(args.path, args.epochs, args.systems[0]) if args.systems else latency_child(args.path)
        print(json.dumps(answer))
        return
    args.systems, args.epochs = args.systems or ["ours"], args.epochs or 3
    (memory if args.what == "memory" else latency)(args)


if __name__ == "__main__":
    main()
