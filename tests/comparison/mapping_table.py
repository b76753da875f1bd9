"""Labels and novelty of mapped cells, ours and others': the table "Mapping and label transfer" of the benchmarks page.

    SCANPY_SCVI_DATA=... python tests/comparison/mapping_table.py --out mapping.jsonl [--systems ours ...] [--seeds 0 1]

Appends one JSON line for each (task, system, seed) and skips lines that are there already. With `--table` it prints the
file as tables in Markdown.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import scanpy as sc
import torch
from mapping_data import LABEL, TASKS, Split, Task, load
from mapping_systems import SYSTEMS, Answer
from result_lines import append_line, read_lines
from sklearn.metrics import roc_auc_score

SCORES = {"sc.tl.ingest": "distance", "kNN on 30 PCs": "distance", "scArches": "1 - p"}
"""Novelty score that a system itself suggests; ours is the distance."""


def score(split: Split, answer: Answer) -> dict:
    """Accuracy over the kinds that the reference has; area under the ROC curve of every novelty score."""
    truth, known = split.query.obs[LABEL].to_numpy().astype(str), ~split.new
    right = answer.labels == truth
    scores = {
        "accuracy": float(right[known].mean()),
        "balanced": float(np.mean([right[truth == label].mean() for label in np.unique(truth[known])])),
    }
    if answer.confidence is not None:
        scores["ece"] = calibration_error(answer.confidence[known], right[known])
    if answer.unknown is not None:
        scores["false_unknown"] = float(answer.unknown[known].mean())
    if split.new.any():
        for name, values in answer.novelty.items():
            scores[f"auc {name}"] = float(roc_auc_score(split.new[split.scored], values[split.scored]))
        if answer.unknown is not None:
            scores["found_unknown"] = float(answer.unknown[split.new & split.scored].mean())
    return scores


def calibration_error(confidence: np.ndarray, right: np.ndarray, n_bins: int = 10) -> float:
    """Expected calibration error in bins of equal size."""
    bins = np.array_split(np.argsort(confidence, kind="stable"), n_bins)
    return float(sum(len(b) * abs(confidence[b].mean() - right[b].mean()) for b in bins if len(b)) / len(right))


def measure(task: Task, split: Split, system: str, seed: int) -> dict:
    """Run one system on one task."""
    answer = SYSTEMS[system](split, seed)
    return {**task._asdict(), "system": system, "seed": seed} | score(split, answer) | answer.seconds


def accuracy_table(lines: list[dict]) -> str:
    """Accuracy where nothing was withheld."""
    columns = {"accuracy": 4, "balanced": 4, "ece": 3, "false_unknown": 3, "fit": 1, "map": 1}
    rows = [
        "| query | system | seeds | accuracy | balanced | calibration error | false Unknown | s, fit | s, map |",
        "|" + "---|" * 9,
    ]
    lines = [x for x in lines if not x["withheld"]]
    for data, system in dict.fromkeys((x["data"], x["system"]) for x in lines):
        found = [x for x in lines if (x["data"], x["system"]) == (data, system)]
        numbers = [_mean(found, key, digits) for key, digits in columns.items()]
        seeds = len({x["seed"] for x in found})
        rows.append("| " + " | ".join([f"`{data}`", system, str(seeds), *numbers]) + " |")
    return "\n".join(rows)


def novelty_table(lines: list[dict]) -> str:
    """Area under the ROC curve for each kind that the reference lacks, and the mean over each query's kinds."""
    lines = [x | {"kind": x["withheld"] or "CD34+"} for x in lines if x["withheld"] or x["data"] == "pbmc"]
    systems = list(dict.fromkeys(x["system"] for x in lines))
    rows = ["| query | the reference lacks | " + " | ".join(systems) + " |", "|" + "---|" * (len(systems) + 2)]
    for data in dict.fromkeys(x["data"] for x in lines):
        of_data = [x for x in lines if x["data"] == data]
        kinds = list(dict.fromkeys(x["kind"] for x in of_data))
        table = {
            (k, s): [x[_score(s)] for x in of_data if (x["kind"], x["system"]) == (k, s)]
            for k in kinds
            for s in systems
        }
        for kind in kinds:
            rows.append(_row(data, kind, [table[kind, s] for s in systems]))
        means = [[float(np.mean(table[k, s])) for k in kinds if table[k, s]] for s in systems]
        rows.append(_row(data, "mean", [m if len(m) == len(kinds) else [] for m in means]))
    return "\n".join(rows)


def _score(system: str) -> str:
    return f"auc {SCORES.get(system, 'distance')}"


def _row(data: str, kind: str, values: list[list[float]]) -> str:
    cells = [f"{np.mean(v):.3f}" if v else "–" for v in values]
    return "| " + " | ".join([f"`{data}`", kind, *cells]) + " |"


def _mean(lines: list[dict], key: str, digits: int) -> str:
    values = [x[key] for x in lines if key in x]
    return f"{np.mean(values):.{digits}f}" if values else "–"


def main() -> None:
    """Measure what is missing, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--data", nargs="+", default=["pbmc", "cellmix"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")  # advice on workers, devices and dependencies
    sc.settings.verbosity = 0
    lines = read_lines(args.out)
    if args.table:
        print(accuracy_table(lines), novelty_table(lines), sep="\n\n")
        return
    done = {(x["data"], x["query"], x["withheld"], x["system"], x["seed"]) for x in lines}
    for seed in args.seeds:
        for task in (t for t in TASKS if t.data in args.data):
            missing = [system for system in args.systems if (*task, system, seed) not in done]
            split = load(task) if missing else None
            for system in missing:
                line = measure(task, split, system, seed)
                append_line(args.out, line)


if __name__ == "__main__":
    main()
