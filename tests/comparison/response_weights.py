"""How hard the prior should press where a response is to be predicted: tumours of patients under a drug.

    SCANPY_SCVI_DATA=... OMP_NUM_THREADS=1 python tests/comparison/response_weights.py --out weights.jsonl [--table]

`glioblastoma_panobinostat`, 200 cells of each patient and condition. The treated cells of one patient are held out, as
those of one cell type are in `response_prediction.py`, and asked of `tl.scvi` with several sizes of the latent space
and weights of the KL. Appends a JSON line for each (patient, options) and skips what is there.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import anndata as ad
import numpy as np
import torch
from response_data import CONDITION, CONTROL, STIMULATED, TYPE, Task, log_normalized
from response_prediction import score
from response_systems import Run, gene_space, scvi
from result_lines import append_line, read_lines

N_CELLS = 200
SETTINGS = [{"n_latent": n, "kl_weight": w} for n in (10, 30) for w in (1.0, 0.1, 0.01, 0.001)]
COLUMNS = ("all", "difference", "difference_top", "determination")


def read() -> ad.AnnData:
    """As many cells of every patient under either condition; patients are the types."""
    adata = ad.read_h5ad(Path(os.environ["SCANPY_SCVI_DATA"]) / "glioblastoma_panobinostat.h5ad")
    control = adata.obs["condition"].astype(str).to_numpy() == "ctrl"
    adata.obs[CONDITION] = np.where(control, CONTROL, STIMULATED)
    adata.obs = adata.obs[[CONDITION]].assign(**{TYPE: adata.obs["batch"].astype(str)})
    rng = np.random.default_rng(0)
    groups = adata.obs.reset_index(drop=True).groupby([TYPE, CONDITION]).indices.values()
    return adata[np.sort(np.concatenate([rng.permutation(rows)[:N_CELLS] for rows in groups]))].copy()


def hold_out(adata: ad.AnnData, name: str) -> Task:
    """Set the treated cells of a patient aside."""
    away = ((adata.obs[TYPE] == name) & (adata.obs[CONDITION] == STIMULATED)).to_numpy()
    total = float(np.median(np.asarray(adata[~away].X.sum(1))))
    return Task(name, adata[~away].copy(), log_normalized(adata[away].X.toarray(), total), total)


def table(lines: list[dict]) -> str:
    """Means over patients."""
    rows = [f"| fit | patients | {' | '.join(COLUMNS)} | CPU s |", "|" + "---|" * (3 + len(COLUMNS))]
    for name in dict.fromkeys(x["system"] for x in lines):
        found = [x for x in lines if x["system"] == name]
        means = [f"{np.mean([x[c] for x in found]):.3f}" for c in COLUMNS]
        seconds = f"{np.mean([x['seconds'] for x in found]):.1f}"
        rows.append(f"| {name} | {len(found)} | {' | '.join(means)} | {seconds} |")
    return "\n".join(rows)


def measure(out: Path) -> None:
    """Append what is missing."""
    done = {(x["held_out"], x["system"]) for x in read_lines(out)}
    adata, run = read(), Run(0, {}, None)
    for patient in sorted(adata.obs[TYPE].unique()):
        task = hold_out(adata, patient)
        for options in (None, *SETTINGS):
            name = "gene-space shift" if options is None else ", ".join(f"{k}={v:g}" for k, v in options.items())
            if (patient, name) in done:
                continue
            answer = next(gene_space(task, run) if options is None else scvi(task, run, **options))
            line = {"held_out": patient, "system": name, **score(task, answer.values), "seconds": answer.seconds}
            append_line(out, line)
            print(line, flush=True)


def main() -> None:
    """Measure what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.table:
        print(table(read_lines(args.out)))
    else:
        measure(args.out)


if __name__ == "__main__":
    main()
