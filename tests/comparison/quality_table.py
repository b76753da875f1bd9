"""Quality and CPU time of whole fits, ours and scvi-tools', on the same cells, genes and split.

    SCANPY_SCVI_DATA=... python tests/comparison/quality_table.py --out results.jsonl \
        --systems ours peer-default peer-pasted peer-our-rate --seeds 0 1 2 3 4

Appends one JSON line for each (data, system, seed) and skips lines that are there already. With `--table` it prints the
file as a table in Markdown.
"""

from __future__ import annotations

import argparse
import importlib
import warnings
from pathlib import Path

import numpy as np
import torch
from quality_data import TASKS, held_out, load
from result_lines import append_line, read_lines

from scanpy_scvi.metrics import batch_mixing, ideal_batch_mixing, label_score

REPORTED = ["cellmix_5batch", "kang_pbmc_ifnb", "hspc_4libraries", "pbmc_facs"]


def score(task, adata, latent) -> dict:
    """Label and mixing scores of one embedding."""
    scores = {}
    labels = None if task.label_key is None else adata.obs[task.label_key].astype(str).to_numpy()
    if labels is not None:
        scores["label"] = label_score(latent, labels)
    if task.batch_key is not None:
        batch = adata.obs[task.batch_key].to_numpy()
        scores["mixing"] = batch_mixing(latent, batch)
        scores["mixing_ideal"] = ideal_batch_mixing(batch, labels)
    return scores


def markdown(lines: list[dict]) -> str:
    """Mean ± SD over seeds of each data set and system."""
    rows = ["| data | system | seeds | bound | IW | label | mixing (ideal) | CPU s | epochs |", "|" + "---|" * 9]
    for data, system in dict.fromkeys((line["data"], line["system"]) for line in lines):
        found = [line for line in lines if (line["data"], line["system"]) == (data, system)]

        def cell(key: str, digits: int, found: list[dict] = found) -> str:
            values = [line[key] for line in found if key in line]
            return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}" if values else "–"

        mixing = f"{cell('mixing', 3)} ({found[0]['mixing_ideal']:.2f})" if TASKS[data].score_mixing else "–"
        scores = [
            cell("bound", 1),
            cell("weighted", 1),
            cell("label", 3),
            mixing,
            cell("cpu_seconds", 1),
            cell("epochs", 0),
        ]
        rows.append("| " + " | ".join([f"`{data}`", system, str(len(found)), *scores]) + " |")
    return "\n".join(rows)


def main() -> None:
    """Run what is missing from the output file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", nargs="+", default=REPORTED)
    parser.add_argument("--systems", nargs="+", default=["ours"])
    parser.add_argument("--seeds", nargs="+", type=int, default=range(5))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore")  # the peer's advice on workers and devices
    lines = read_lines(args.out)
    if args.table:
        print(markdown(lines))
        return
    done = {(line["data"], line["system"], line["seed"]) for line in lines}
    for seed in args.seeds:
        for name in args.data:
            adata = load(TASKS[name])
            test = held_out(adata.n_obs, seed)
            for system in args.systems:
                if (name, system, seed) in done:
                    continue
                side = importlib.import_module("quality_peer" if system.startswith("peer") else "quality_ours")
                scores, latent = side.run(TASKS[name], adata, test, system, seed)
                line = {"data": name, "system": system, "seed": seed, **scores, **score(TASKS[name], adata, latent)}
                append_line(args.out, line)


if __name__ == "__main__":
    main()
