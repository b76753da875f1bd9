"""The sVAE+ paper's own code on the simulated screens of `perturbations_table.py`.

    git clone https://github.com/Genentech/sVAE CODE
    OMP_NUM_THREADS=1 python tests/comparison/perturbations_peer.py --svae CODE --peer PYTHON --out peer.jsonl
    python tests/comparison/perturbations_peer.py --out peer.jsonl --table

PYTHON is that of an environment with what this code asks for:

    scvi-tools==0.18.0 torch==1.13.1 "pytorch-lightning<1.8" "anndata<0.9" "pandas<2" "numpy<1.24"   (Python 3.9)

A penalty of 1, the default of its script, is none; 100, the number of perturbations, is that of the paper. F1 is over
the fitted perturbations, latents matched by absolute correlations, as for all systems of the table; "F1, as coded" is
that of its script: latents matched by signed correlations, and the held-out perturbations, whose gates still are as
they were at the start, counted too. The bound is as in the table: 100 draws, shifts from cells that are not scored, all
gates open.

Appends one JSON line for each (data, penalty, seed) and skips those that are there.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from perturbations_data import DATA, KEY, scored_cells, screen_of, simulated
from perturbations_scores import mean_sd
from result_lines import append_line, read_lines
from scipy.optimize import linear_sum_assignment

from scanpy_scvi.metrics import iwelbo, latent_r2, mcc, target_auprc, target_f1

HERE = Path(__file__).parent
COLUMNS = {
    "mcc": ("MCC", 3),
    "r2": ("R²", 3),
    "f1": ("F1", 3),
    "f1_as_coded": ("F1, as coded", 3),
    "auprc": ("AUPRC", 3),
    "density": ("density", 3),
    "bound": ("bound", 1),
    "epochs": ("epochs", 0),
    "seconds": ("CPU s", 0),
}


def signed_assignment(true: np.ndarray, estimated: np.ndarray) -> np.ndarray:
    """Partners by the largest signed correlations, as in the paper's code."""
    p = true.shape[1]
    return linear_sum_assignment(-np.corrcoef(true, estimated, rowvar=False)[:p, p:])[1]


def measure(args: argparse.Namespace, data: str, penalty: float, seed: int) -> dict:
    """Fit in its process, and score."""
    size = {"n_perturbations": args.n_perturbations, "cells_per_perturbation": args.cells}
    adata = simulated(DATA[data], seed, size)
    screen = screen_of(adata, hold_out=True)
    names, targets = list(adata.uns["simulation"]["perturbations"]), adata.uns["simulation"]["targets"]
    label = np.array([names.index(name) for name in adata.obs[KEY]])
    fitted = label < len(screen.names)
    scored = np.zeros(adata.n_obs, bool)
    scored[~fitted] = scored_cells(screen.held_out)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder, "screen.npz"), counts=adata.X.toarray(), perturbation=label, fitted=fitted, scored=scored)
        command = [args.peer, HERE / "perturbations_peer_fit.py", args.svae, folder, penalty, seed, args.epochs]
        subprocess.run([str(word) for word in command], check=True)
        answer = dict(np.load(Path(folder, "answer.npz")))
    true, latent, gates = adata.obsm["z"][fitted], answer["latent"], answer["gates"]
    match = mcc(true, latent)
    known = gates[: len(screen.names)]
    bound = iwelbo(answer["log_weights"], label[scored], min_cells=0)
    return {
        "data": data,
        "penalty": penalty,
        "seed": seed,
        "mcc": match.mcc,
        "r2": latent_r2(true, latent),
        "f1": target_f1(screen.targets, known, match.assignment).f1,
        "f1_as_coded": target_f1(targets, gates, signed_assignment(true, latent)).f1,
        "auprc": target_auprc(screen.targets, np.abs(answer["shifts"][: len(known)]) * known, match.assignment),
        "density": float((known > 0.5).mean()),
        "true_density": float(screen.targets.mean()),
        "bound": bound.mean,
        "epochs": int(answer["epochs"]),
        "seconds": float(answer["seconds"]),
    }


def as_table(lines: list[dict]) -> str:
    """Mean ± SD over seeds."""
    heads = [head for head, _ in COLUMNS.values()]
    rows = ["| sVAE+, its own code | " + " | ".join(heads) + " |", "|" + "---|" * (1 + len(COLUMNS))]
    for data, penalty in dict.fromkeys((line["data"], line["penalty"]) for line in lines):
        found = [line for line in lines if (line["data"], line["penalty"]) == (data, penalty)]
        cells = [mean_sd([line[key] for line in found], digits) for key, (_, digits) in COLUMNS.items()]
        rows.append(f"| {data}, penalty {penalty:g} ({len(found)} seeds) | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    """Run what is missing from the output file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--svae", type=Path, help="checkout of the code")
    parser.add_argument("--peer", help="Python with scvi-tools 0.18")
    parser.add_argument("--data", nargs="+", default=list(DATA))
    parser.add_argument("--penalties", nargs="+", type=float, default=[100.0, 1.0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--n-perturbations", type=int, default=100, help="fewer for a try")
    parser.add_argument("--cells", type=int, default=250, help="cells of a perturbation; fewer for a try")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        print(as_table(read_lines(args.out)))
        return
    if not args.svae or not args.peer:
        parser.error("--svae and --peer are needed, but for --table")
    done = {(line["data"], line["penalty"], line["seed"]) for line in read_lines(args.out)}
    for seed in args.seeds:
        for penalty in args.penalties:
            for data in args.data:
                if (data, penalty, seed) not in done:
                    line = measure(args, data, penalty, seed)
                    print(line, flush=True)
                    append_line(args.out, line)


if __name__ == "__main__":
    main()
