"""Seconds and memory of differential expression, ours and scvi-tools', in one process, alternating.

    OMP_NUM_THREADS=1 python tests/benchmark/differential.py --out de.jsonl --cells 5000 20000 100000 --groups 8
    OMP_NUM_THREADS=1 python tests/benchmark/differential.py --out de.jsonl --table

Simulated counts, 2,000 genes, four batches, groups of equal size, each against the rest; models of the same sizes (one
layer of 128, 10 latent dimensions, NB), fitted for one epoch, as the weights do not matter for the time. Both draw
5,000 times a side in every batch alike (`batch_correction=True`, scvi-tools: `mode="change"`) and return their whole
tables. scvi-tools decodes all cells for every group, so it is timed on `--timed` groups and the time is given for one;
ours is timed on all groups, as it shares work between them. Memory is the rise of the process's peak during the call.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path

import numpy as np
import scanpy as sc
from _common import append_line, gemm_ms, read_lines
from _counts import simulated_file

SIZES = {"n_layers": 1, "n_latent": 10, "n_hidden": 128}


def reset_peak() -> None:
    """Set the high-water mark of the resident memory back."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """High-water mark of the resident memory."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def resident_mib() -> float:
    """Resident memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def timed(call) -> dict[str, float]:
    """Wall and CPU seconds of a call, and by how much it raised the memory."""
    reset_peak()
    before, wall, cpu = resident_mib(), time.perf_counter(), time.process_time()
    call()
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "peak_mib": peak_mib() - before,
    }


def run(args: argparse.Namespace, n_cells: int) -> None:
    """Fit both, then time them in turn."""
    import scvi

    import scanpy_scvi as sv

    adata = sc.read_h5ad(simulated_file(n_cells, 2000))
    names = np.arange(n_cells) % args.groups
    adata.obs["group"] = np.random.default_rng(0).permutation(names).astype(str)
    theirs = adata.copy()
    scvi.model.SCVI.setup_anndata(theirs, batch_key="batch")
    model = scvi.model.SCVI(theirs, gene_likelihood="nb", **SIZES)
    model.train(1, accelerator="cpu", enable_progress_bar=False)
    quick = {"max_epochs": 1, "normalized": False, "progress": False, "mask_var": None}
    sv.tl.scvi(adata, "batch", encode_covariates=False, **SIZES, **quick)
    sv.tl.rank_genes_groups(adata, "group", groups=["0"], n_samples=100)  # kernels loaded
    some = [str(g) for g in range(args.timed)]
    calls = {
        "peer": lambda: model.differential_expression(
            groupby="group", group1=some, mode="change", batch_correction=True, silent=True
        ),
        "ours": lambda: sv.tl.rank_genes_groups(adata, "group"),
        "ours, one group": lambda: sv.tl.rank_genes_groups(adata, "group", groups=["0"]),
    }
    for i in range(args.rounds):
        for system, call in calls.items():
            found = timed(call)
            n_groups = {"peer": args.timed, "ours": args.groups}.get(system, 1)
            line = {"cells": n_cells, "groups": args.groups, "system": system, "round": i, "gemm_ms": gemm_ms()}
            append_line(args.out, line | found | {"cpu_per_group": found["cpu"] / n_groups})


def table(lines: list[dict]) -> str:
    """Seconds for a group, ratios and memory, medians over rounds."""

    def of(cells: int, system: str, key: str) -> float:
        return float(np.median([x[key] for x in lines if (x["cells"], x["system"]) == (cells, system)]))

    rows = [
        "| cells | scvi-tools, CPU s for a group | ours, of all groups | ÷ | ours, one alone | ÷ "
        "| scvi-tools, MiB | ours, MiB |",
        "|" + "---|" * 8,
    ]
    for n in sorted({line["cells"] for line in lines}):
        peer, ours, one = (of(n, s, "cpu_per_group") for s in ("peer", "ours", "ours, one group"))
        memory = [f"{of(n, s, 'peak_mib'):,.0f}" for s in ("peer", "ours")]
        cells = [
            f"{n:,}",
            f"{peer:.2f}",
            f"{ours:.3f}",
            f"**{peer / ours:.0f}×**",
            f"{one:.3f}",
            f"**{peer / one:.0f}×**",
        ]
        rows.append("| " + " | ".join([*cells, *memory]) + " |")
    return "\n".join(rows)


def main() -> None:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cells", type=int, nargs="+", default=[5000, 20_000, 100_000])
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--timed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    sc.settings.verbosity = 0
    warnings.filterwarnings("ignore")  # the peer's advice on workers and devices
    for n_cells in [] if args.table else args.cells:
        run(args, n_cells)
    print(table(read_lines(args.out)))


if __name__ == "__main__":
    main()
