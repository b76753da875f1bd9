"""What a default `tl.scvi` needs beside its data: peak memory, and seconds from the call to the first epoch.

    OMP_NUM_THREADS=2 python tests/benchmark/footprint.py memory [--cells 100000 --genes 2000 --epochs 3]
    OMP_NUM_THREADS=2 python tests/benchmark/footprint.py latency [--processes 7] [--imports]

**memory.** A new process imports scanpy, torch, numba and scanpy_scvi (with `sv.tl`), reads simulated counts (CSR,
float32, 9 % non-zero), and calls `tl.scvi(normalized=False)`. Reported is the peak of its resident memory (the
kernel's own high-water mark, set back at each step), less what the process had after its imports and less the
counts' arrays. One row a step says what the peak was until there, and what was left. Memory does not depend on the
number of epochs.

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
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 2**20


def resident(field: str = "VmRSS") -> float:
    """Resident memory of this process in MiB, or its high-water mark (`VmHWM`)."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def forget_peak() -> None:
    """Set the high-water mark back to the present (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def memory_child(path: str, epochs: int) -> dict:
    """Fit in this process and say what it took, phase by phase."""
    import numba  # noqa: F401
    import scanpy as sc
    import torch

    import scanpy_scvi as sv

    _ = sv.tl
    after_imports = resident()
    adata = sc.read_h5ad(path)
    counts = sum(a.nbytes for a in (adata.X.data, adata.X.indices, adata.X.indptr)) / MIB
    floor, before, rows = after_imports + counts, resident(), []

    def mark(name: str, what: str) -> None:
        rows.append({"until": f"{name} {what}", "peak": resident("VmHWM") - floor, "left": resident() - floor})
        forget_peak()

    watch(mark)
    forget_peak()
    start = time.perf_counter()
    sv.tl.scvi(adata, "batch", normalized=False, progress=False, max_epochs=epochs)
    seconds = time.perf_counter() - start
    mark("scvi", "ends")
    return {
        "shape": adata.shape,
        "density": round(adata.X.nnz / (adata.n_obs * adata.n_vars), 4),
        "threads": torch.get_num_threads(),
        "epochs": epochs,
        "seconds": round(seconds, 1),
        "after_imports_mib": round(after_imports),
        "counts_mib": round(counts),
        "before_call_above_both_mib": round(before - floor),
        "phases_mib": [{k: v if k == "until" else round(v) for k, v in row.items()} for row in rows],
        "peak_above_both_mib": round(max(row["peak"] for row in rows)),
    }


def latency_child(path: str, _: int) -> dict:
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


def watch(mark: Callable[[str, str], None]) -> None:
    """Call `mark` where the steps of a fit begin and end."""
    from scanpy_scvi.tl import _fit as caller
    from scanpy_scvi.training import fit as _  # noqa: F401

    training = sys.modules["scanpy_scvi.training.fit"]  # its package has a function of the same name
    steps = [(caller, name) for name in ("read", "quick_findings", "fit", "latent_moments", "model_entry")]
    for owner, name in [*steps, (training, "start_from_data"), (training._Fit, "_epoch")]:
        setattr(owner, name, watched(name.strip("_"), getattr(owner, name), mark))


def watched(name: str, function: Callable, mark: Callable[[str, str], None]) -> Callable:
    """Return `function` with marks around it."""

    def call(*args, **kwargs):
        mark(name, "begins")
        result = function(*args, **kwargs)
        mark(name, "ends")
        return result

    return call


def in_new_process(kind: str, path: Path, epochs: int, *options: str) -> tuple[dict, str]:
    """Run a child; return its answer and what it wrote to stderr."""
    command = [
        sys.executable,
        *options,
        __file__,
        "child",
        "--kind",
        kind,
        "--path",
        str(path),
        "--epochs",
        str(epochs),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def imports_of_the_call(log: str, n: int = 25) -> list[dict]:
    """Modules imported after torch, by their own seconds, from the log of `python -X importtime`."""
    after = re.split(r"\| torch\n", log, maxsplit=1)[1]
    found = [(int(own), int(total), name) for own, total, name in re.findall(r"time:\s+(\d+) \|\s+(\d+) \|(.*)", after)]
    packages: dict[str, int] = {}
    for own, _, name in found:
        package = ".".join(name.strip().split(".")[:2])
        packages[package] = packages.get(package, 0) + own
    largest = sorted(packages.items(), key=lambda item: -item[1])[:n]
    total = sum(own for own, _, _ in found)
    return [{"all imports of the call, ms": round(total / 1e3)}, {name: round(own / 1e3, 1) for name, own in largest}]


def latency(path: Path, processes: int, *, imports: bool) -> None:
    """Print each process, then medians."""
    rows = [in_new_process("latency", path, 3)[0] for _ in range(processes + 1)][1:]
    for row in rows:
        print(json.dumps({k: round(v, 3) for k, v in row.items()}))
    if imports:
        for line in imports_of_the_call(in_new_process("latency", path, 3, "-X", "importtime")[1]):
            print(json.dumps(line))
    medians = {key: round(sorted(row[key] for row in rows)[len(rows) // 2], 3) for key in rows[0]}
    print(json.dumps({"processes": len(rows), "medians": medians}))


def main() -> None:
    """Measure one of both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["memory", "latency", "child"])
    parser.add_argument("--cells", type=int)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--processes", type=int, default=7)
    parser.add_argument("--imports", action="store_true")
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.what == "child":
        child = memory_child if args.kind == "memory" else latency_child
        print(json.dumps(child(args.path, args.epochs)))
        return
    from _counts import simulated_file

    if args.what == "memory":
        path = simulated_file(args.cells or 100_000, args.genes)
        answer = in_new_process("memory", path, args.epochs)[0]
        for row in answer.pop("phases_mib"):
            print(json.dumps(row))
        print(json.dumps(answer))
    else:
        latency(simulated_file(args.cells or 1000, args.genes), args.processes, imports=args.imports)


if __name__ == "__main__":
    main()
