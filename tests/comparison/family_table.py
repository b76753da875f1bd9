"""All systems on all data sets: the table of {doc}`choosing`.

    SCANPY_SCVI_DATA=... python tests/comparison/family_table.py --out family.jsonl --peer PYTHON --seeds 0 1 2

Each system is fitted to nine tenths of the cells over the 2,000 most variable genes, in a process of its own, PYTHON
being that of an environment with scvi-tools. Appends one JSON line for each (data, system, seed) and skips lines that
are there already. With `--table` it prints the file as a table in Markdown.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import scanpy as sc
from family_data import halves, nats_per_molecule
from family_ours import SYSTEMS
from quality_data import TASKS, Task, held_out, load
from result_lines import append_line, read_lines
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from scanpy_scvi.metrics import batch_mixing, ideal_batch_mixing, label_score

REPORTED = ["pbmc_facs", "paul15", "cellmix_5batch", "kang_pbmc_ifnb", "mouse_bladder"]
PEERS = ["SCVI", "LinearSCVI"]
RESOLUTIONS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0)
HERE = Path(__file__).parent


def clusters(latent: np.ndarray, n_wanted: int) -> np.ndarray:
    """Leiden clusters at the resolution that comes closest to a number of clusters."""
    adata = ad.AnnData(obsm={"X": latent})
    sc.pp.neighbors(adata, use_rep="X", random_state=0)
    found = []
    for resolution in RESOLUTIONS:
        sc.tl.leiden(adata, resolution=resolution, flavor="igraph", n_iterations=2, random_state=0)
        found.append(adata.obs["leiden"].to_numpy().astype(str))
    return min(found, key=lambda labels: abs(len(set(labels)) - n_wanted))


def score(task: Task, obs: dict[str, np.ndarray], latent: np.ndarray) -> dict:
    """Labels kept, clusters like labels, batches mixed."""
    scores, labels = {}, obs[task.label_key]
    scores["label"] = label_score(latent, labels)
    found = clusters(latent, len(set(labels)))
    scores["ari"], scores["nmi"] = adjusted_rand_score(labels, found), normalized_mutual_info_score(labels, found)
    if task.batch_key is not None:
        scores["mixing"] = batch_mixing(latent, obs[task.batch_key])
        scores["mixing_ideal"] = ideal_batch_mixing(obs[task.batch_key], labels)
    return scores


def measure(task: Task, adata: ad.AnnData, system: str, seed: int, peer: str | None) -> dict:
    """Run one system in its process, and score what it says."""
    test = held_out(adata.n_obs, seed)
    half, hidden = halves(adata[test], seed)
    with tempfile.TemporaryDirectory() as folder:
        for name, cells in (("train", adata[~test]), ("test", adata[test]), ("half", half)):
            cells.copy().write_h5ad(Path(folder, f"{name}.h5ad"))
        program = [peer, HERE / "family_peer.py"] if system in PEERS else [sys.executable, HERE / "family_ours.py"]
        subprocess.run([*program, system, folder, str(seed)], check=True)
        answer = dict(np.load(Path(folder, "answer.npz")))
    latent = np.empty((adata.n_obs, answer["train"].shape[1]))
    latent[~test], latent[test] = answer["train"], answer["test"]
    obs = {key: adata.obs[key].astype(str).to_numpy() for key in (task.label_key, task.batch_key) if key}
    line = {"data": task.name, "system": system, "seed": seed, **score(task, obs, latent)}
    if "shares" in answer:
        average = np.asarray(adata[~test].X.sum(0)).ravel() + 0.5
        line["molecules"] = nats_per_molecule(answer["shares"], hidden, average)
    return line | {key: float(answer[key]) for key in ("bound", "seconds", "memory") if key in answer}


COLUMNS = {
    "bound": ("-log p(x)", 1),
    "molecules": ("nats/molecule", 3),
    "label": ("kNN", 3),
    "ari": ("ARI", 2),
    "nmi": ("NMI", 2),
    "mixing": ("same batch", 2),
    "seconds": ("CPU s", 0),
    "memory": ("MB", 0),
}
"""Heads and digits."""


def as_table(lines: list[dict], data: str) -> str:
    """Mean ± SD over seeds for each system on one data set; a system with fewer seeds than others says so."""
    lines = [line for line in lines if line["data"] == data]
    columns = [key for key in COLUMNS if any(key in line for line in lines)]
    ideal = next((f" (ideal {line['mixing_ideal']:.2f})" for line in lines if "mixing_ideal" in line), "")
    head = [COLUMNS[key][0] + (ideal if key == "mixing" else "") for key in columns]
    rows = [f"| `{data}` | " + " | ".join(head) + " |", "|" + "---|" * (1 + len(head))]
    seeds = {line["seed"] for line in lines}
    for system in dict.fromkeys(line["system"] for line in lines):
        found = [line for line in lines if line["system"] == system]
        cells = [system + ("" if len(found) == len(seeds) else f" ({len(found)} of {len(seeds)} seeds)")]
        for key in columns:
            values, digits = [line[key] for line in found if key in line], COLUMNS[key][1]
            spread = (
                f"\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{np.std(values):.{digits}f}" if key in ("bound", "label") else ""
            )
            cells.append(f"{np.mean(values):.{digits}f}{spread}" if values else "–")
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    """Run what is missing from the output file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--peer", help="Python with scvi-tools")
    parser.add_argument("--data", nargs="+", default=REPORTED)
    parser.add_argument("--systems", nargs="+", default=["pca", *PEERS, *SYSTEMS, "learn_embedding"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    lines = read_lines(args.out)
    if args.table:
        print("\n\n".join(as_table(lines, data) for data in args.data))
        return
    done = {(line["data"], line["system"], line["seed"]) for line in lines}
    for seed in args.seeds:
        for name in args.data:
            adata = load(TASKS[name])
            for system in args.systems:
                if (name, system, seed) in done or (system in PEERS and not args.peer):
                    continue
                line = measure(TASKS[name], adata, system, seed, args.peer)
                print(line, flush=True)
                append_line(args.out, line)


if __name__ == "__main__":
    main()
