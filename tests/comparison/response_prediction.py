"""Responses of blood cells to interferon beta, predicted for each cell type from the others.

    SCANPY_SCVI_DATA=... OMP_NUM_THREADS=1 python tests/comparison/response_prediction.py --out response.jsonl
        [--types "B cells" ...] [--seeds 0 1 2] [--genes 2000] [--systems scgen ...] [--peer PYTHON SCGEN] [--table]

The stimulated cells of one type are held out: of the fit, of the choice of genes and of every shift. What is predicted
for its control cells is compared with the held-out ones by `metrics.response_r2`, as log-normalised counts. Fits of
counts are compared by counts: one is drawn for each cell and gene from the fit's negative binomial at the cell's own
depth, and log-normalised as the real ones are. `in interval` is the share of genes whose real mean lies in the 95%
interval of `tl.predict_perturbation`. With `--peer`, a Python with scvi-tools and a copy of theislab/scgen, scGen's own
code too. Appends a JSON line for each (type, seed, system) and skips what is there. With `--table` it prints the file
as tables in Markdown. `--quick` tries everything at tiny size.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import scanpy as sc
import torch
from response_data import CONTROL, TYPE, Task, hold_out, read
from response_systems import NAMES, RANDOM, SYSTEMS, Run, ask
from result_lines import append_line, read_lines

import scanpy_scvi as sv

QUICK = {"max_epochs": 5, "n_hidden": 64, "n_latent": 10}
SCORES = {
    "all": "R², all genes",
    "top": "R², top 100",
    "difference": "R² of the difference",
    "difference_top": "same, top 100",
    "determination": "its determination",
    "determination_top": "same, top 100",
    "inside": "in interval",
    "seconds": "CPU s",
}


def score(task: Task, values: np.ndarray) -> dict[str, float]:
    """Agreement of means, and of their differences from the control cells."""
    found = sv.metrics.response_r2(values, task.real, task.logs()[task.under(CONTROL)], top_n=100)
    return {
        "all": found.mean.correlation,
        "top": found.mean_top.correlation,
        "difference": found.difference.correlation,
        "difference_top": found.difference_top.correlation,
        "determination": found.difference.determination,
        "determination_top": found.difference_top.determination,
    }


def table(lines: list[dict]) -> str:
    """Means over types, mean ± SD over seeds; then each type by itself."""
    systems = [name for name in NAMES if any(x["system"] == name for x in lines)]
    held_out = sorted({x["held_out"] for x in lines})
    rows = [f"| system | seeds | {' | '.join(SCORES.values())} |", "|" + "---|" * (2 + len(SCORES))]
    for system in systems:
        found = [x for x in lines if x["system"] == system]
        seeds = sorted({x["seed"] for x in found})
        if {(x["held_out"], x["seed"]) for x in found} != {(name, seed) for name in held_out for seed in seeds}:
            rows.append(f"| {system} | not all types |" + " |" * len(SCORES))
            continue
        cells = []
        for column in SCORES:
            values = [_mean([x[column] for x in found if x["seed"] == seed]) for seed in seeds]
            cells.append(_shown(values, 1 if column == "seconds" else 3))
        rows.append(f"| {system} | {len(seeds) if len(seeds) > 1 else '–'} | {' | '.join(cells)} |")
    for column in ("all", "top", "difference", "difference_top"):
        rows += ["", f"{SCORES[column]} ({column}):", ""]
        rows += [f"| held out | {' | '.join(systems)} |", "|" + "---|" * (1 + len(systems))]
        for name in held_out:
            each = [[x[column] for x in lines if (x["system"], x["held_out"]) == (s, name)] for s in systems]
            rows.append(f"| {name} | {' | '.join(_shown(values, 3) for values in each)} |")
    return "\n".join(rows)


def _mean(values: list[float | None]) -> float:
    return np.nan if None in values else float(np.mean(values))


def _shown(values: list[float], digits: int) -> str:
    """Mean ± SD."""
    if not len(values) or np.isnan(values).any():
        return "–"
    sd = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{sd}"


def load_compiled_code(task: Task) -> None:
    """Fit once for two epochs, so that no system pays for what happens once in a process."""
    few = task._replace(train=task.train.copy())
    sv.tl.scgen(few.train, max_epochs=2, n_hidden=16, n_latent=4, normalized=False, progress=False)
    sv.tl.scvi(few.train, max_epochs=2, normalized=False, progress=False)
    ask(few, "scvi", 0)


def measure(args: argparse.Namespace) -> None:
    """Append what is missing."""
    done = {(x["held_out"], x["seed"], x["run"]) for x in read_lines(args.out)}
    adata = read()
    names = args.types or sorted(adata.obs[TYPE].unique())
    tasks = [hold_out(adata, name, 300 if args.quick else args.genes) for name in (names[:1] if args.quick else names)]
    load_compiled_code(tasks[0])
    for seed in args.seeds[: 1 if args.quick else None]:
        for task in tasks:
            for system in args.systems:
                if (task.held_out, seed, system) in done or (seed != args.seeds[0] and system not in RANDOM):
                    continue
                run = Run(seed, QUICK if args.quick else {}, args.peer and (args.peer[0], Path(args.peer[1])))
                for answer in list(SYSTEMS[system](task, run)):
                    line = {"held_out": task.held_out, "seed": seed, "run": system, "system": answer.system}
                    line |= score(task, answer.values) | {"inside": answer.inside, "seconds": answer.seconds}
                    line |= {"n_real": len(task.real)}
                    append_line(args.out, {k: None if v != v else v for k, v in line.items()})
                    print(line, flush=True)


def main() -> None:
    """Measure what is missing, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--types", nargs="+", help="types to hold out; by default all with enough cells")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--peer", nargs=2, metavar=("PYTHON", "SCGEN"), help="for the row of scGen's own code")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sc.settings.verbosity = 0
    if args.table:
        print(table(read_lines(args.out)))
    else:
        measure(args)


if __name__ == "__main__":
    main()
