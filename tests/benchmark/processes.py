"""Cells per second of one process on one core against several on as many, with the same minibatches.

    python tests/benchmark/processes.py [--processes 1 2] [--cells 50000 --genes 2000 --batch-sizes 128 1024 4096]
        [--epochs 3 --rounds 3] [--where]

The processes are started by this script as torchrun would start them (gloo), read simulated counts (CSR, 9 % non-zero),
and fit the default scVI model, each on one thread and, where the machine lets one choose, on a core of its own. Timed
are epochs after the first, with their held-out bound; rounds alternate, so that other load on the machine meets all
alike. A step of several processes is its share of the work, all of what the optimiser does, and messages: the sums
of the gradient, and two small ones, which nothing can overlap with, for each layer with batch normalisation.
`--where` times the messages alone, in microseconds: they are all that is lost to one process.

Prints one JSON line a run, then medians and ratios to one process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

LAYERS = 4
"""Layers with batch normalisation in the default model."""


def child(rank: int, size: int, folder: Path, args: argparse.Namespace) -> dict[str, Any] | None:
    """Fit in this process, one of several; the first answers."""
    import torch
    from torch import distributed

    from scanpy_scvi.training.ranks import Ranks, connect

    torch.set_num_threads(1)
    with suppress(AttributeError, OSError):  # not everywhere, and not where there are fewer cores
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    if size > 1:
        connect("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    answer = messages(Ranks(size, rank), args) if args.where else timed_fit(Ranks(size, rank), args)
    if size > 1:
        distributed.destroy_process_group()
    return None if rank else answer


def timed_fit(ranks: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Epochs of a default fit; cells per second of all but the first."""
    import anndata as ad

    import scanpy_scvi as sv
    from scanpy_scvi.training import fit as _  # noqa: F401
    from scanpy_scvi.training.ranks import NotFirst, fitting_together

    loop, ends = sys.modules["scanpy_scvi.training.fit"]._Fit, []
    epoch = loop._epoch

    def marked(self: Any, number: int) -> Any:
        record = epoch(self, number)
        ends.append(time.perf_counter())
        return record

    loop._epoch = marked
    adata = ad.read_h5ad(args.path)
    options = {"max_epochs": args.epochs + 1, "early_stopping": False, "batch_size": args.batch_sizes[0]}
    with fitting_together(ranks), suppress(NotFirst):
        sv.tl.scvi(adata, "batch", **options, normalized=False, progress=False, device="cpu")
    seconds = float(np.median(np.diff(ends)))
    bound = float(adata.uns["scvi"]["history"]["validation_elbo"][-1]) if not ranks.rank else None
    return {"cells_per_second": round(adata.n_obs / seconds), "seconds_per_epoch": seconds, "held_out": bound}


def messages(ranks: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Microseconds of the messages of one step."""
    import torch

    wide = [torch.zeros(args.genes * 128) for _ in range(2)]
    rest = [torch.zeros(128 * 128 * 3), torch.zeros(())]
    forward, backward = torch.zeros(2, 128, dtype=torch.float64), torch.zeros(2, 128)
    moments = LAYERS * (_microseconds(lambda: ranks.sum_(forward)) + _microseconds(lambda: ranks.sum_(backward)))
    return {"moments_us": round(moments), "gradient_us": round(_microseconds(lambda: ranks.sum_(*wide, *rest)))}


def _microseconds(message: Callable[[], None], repeats: int = 300) -> float:
    for _ in range(repeats // 10):
        message()
    start = time.perf_counter()
    for _ in range(repeats):
        message()
    return 1e6 * (time.perf_counter() - start) / repeats


def run(size: int, batch_size: int, path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Start processes and wait for the answer of the first."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["--path", path, "--genes", args.genes, "--epochs", args.epochs, "--batch-sizes", batch_size]
        words += ["--where"] if args.where else []
        children = [
            subprocess.Popen(
                [sys.executable, __file__, "--child", str(rank), str(size), folder, *map(str, words)],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(size)
        ]
        answers = [process.communicate()[0] for process in children]
    if any(process.returncode for process in children):
        raise SystemExit(1)
    return {"processes": size, "batch_size": batch_size, **json.loads(answers[0].splitlines()[-1])}


def main() -> None:
    """Alternate, then compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--cells", type=int, default=50_000)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[128, 1024, 4096])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--where", action="store_true")
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        rank, size, folder = args.child
        print(json.dumps(child(int(rank), int(size), Path(folder), args)))
        return
    from _counts import simulated_file

    path = simulated_file(args.cells, args.genes)
    rows = []
    for _ in range(args.rounds):
        for batch_size in args.batch_sizes[: 1 if args.where else None]:
            for size in args.processes:
                rows.append(run(size, batch_size, path, args))
                print(json.dumps(rows[-1]), flush=True)
    for batch_size in [] if args.where else args.batch_sizes:
        speeds = {
            size: [r["cells_per_second"] for r in rows if (r["processes"], r["batch_size"]) == (size, batch_size)]
            for size in args.processes
        }
        medians = {size: float(np.median(values)) for size, values in speeds.items()}
        ratios = {size: round(value / medians[args.processes[0]], 2) for size, value in medians.items()}
        print(json.dumps({"batch_size": batch_size, "cells_per_second": medians, "ratio": ratios}))


if __name__ == "__main__":
    main()
