"""Responses of blood cells to interferon beta, predicted for each cell type from the others.

    SCANPY_SCVI_DATA=... OMP_NUM_THREADS=1 python tests/comparison/response_prediction.py --out response.jsonl
        [--types "B cells" ...] [--seeds 0 1 2] [--genes 2000] [--quick] [--table]

The stimulated cells of one type are held out: of the fit, of the choice of genes and of every shift. What is predicted
for its control cells is compared with the held-out ones by means over cells of log-normalised counts: squared Pearson
correlation over all genes and over the hundred that differ most in the real cells (fifty up, fifty down, by Welch's t),
and the same of the difference from the control cells, where doing nothing earns nothing. Fits of counts are compared by
counts: one is drawn for each cell and gene from the fit's negative binomial at the cell's own depth, and log-normalised
as the real ones are. `in interval` is the share of genes whose real mean lies in the 95% interval of
`tl.predict_perturbation`; CPU seconds are those of the fit. Appends a JSON line for each (type, seed, system) and skips
what is there. With `--table` it prints the file as tables in Markdown. `--quick` tries everything at tiny size.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anndata as ad
import numpy as np
import scanpy as sc
import torch
from scipy import stats

import scanpy_scvi as sv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONDITION, CONTROL, STIMULATED, TYPE = "condition", "ctrl", "stim", "cell_type"
LEAST_CELLS, N_COMPONENTS, N_TOP = 30, 100, 100
QUICK = {"max_epochs": 5, "n_hidden": 64, "n_latent": 10}


class Task(NamedTuple):
    """One type held out."""

    held_out: str
    train: ad.AnnData
    """Counts of all other cells."""
    real: np.ndarray
    """Log-normalised counts of the held-out cells."""
    total: float
    """Total that counts are brought to before their logarithm is taken."""

    def logs(self) -> np.ndarray:
        """Log-normalised counts of the training cells."""
        return log_normalized(self.train.X.toarray(), self.total)

    def under(self, condition: str, name: str | None = None) -> np.ndarray:
        """Training cells of a type, by default the held-out one, under a condition."""
        obs = self.train.obs
        return ((obs[CONDITION] == condition) & (obs[TYPE] == (self.held_out if name is None else name))).to_numpy()


class Answer(NamedTuple):
    """What a system predicts."""

    mean: np.ndarray
    """Mean over cells of log-normalised counts, (n_genes,)."""
    inside: float
    seconds: float


def log_normalized(counts: np.ndarray, total: float) -> np.ndarray:
    return np.log1p(total * counts / np.maximum(counts.sum(1, keepdims=True), 1))


def load(held_out: str, n_genes: int) -> Task:
    """Cells of types with enough of them under both conditions; genes that vary among the training cells."""
    adata = ad.read_h5ad(Path(os.environ["SCANPY_SCVI_DATA"]) / "kang_pbmc_ifnb.h5ad")
    adata.obs = adata.obs[[CONDITION, TYPE]].astype(str)
    adata = adata[adata.obs[TYPE].isin(types(adata))].copy()
    away = ((adata.obs[TYPE] == held_out) & (adata.obs[CONDITION] == STIMULATED)).to_numpy()
    logs = sc.pp.log1p(sc.pp.normalize_total(adata[~away], copy=True), copy=True)
    sc.pp.highly_variable_genes(logs, n_top_genes=n_genes)
    adata = adata[:, logs.var["highly_variable"]].copy()
    adata = adata[np.asarray(adata.X.sum(1)).ravel() > 0].copy()
    away = ((adata.obs[TYPE] == held_out) & (adata.obs[CONDITION] == STIMULATED)).to_numpy()
    train = adata[~away].copy()
    total = float(np.median(np.asarray(train.X.sum(1))))
    return Task(held_out, train, log_normalized(adata[away].X.toarray(), total), total)


def types(adata: ad.AnnData) -> list[str]:
    """Types with enough cells under both conditions."""
    n = adata.obs.groupby([TYPE, CONDITION], observed=True).size().unstack(fill_value=0)
    return n.index[(n >= LEAST_CELLS).all(axis=1)].astype(str).tolist()


def shift(task: Task, values: np.ndarray) -> np.ndarray:
    """Mean over the other types of the differences within them."""
    others = [name for name in task.train.obs[TYPE].unique() if name != task.held_out]
    return np.mean(
        [values[task.under(STIMULATED, n)].mean(0) - values[task.under(CONTROL, n)].mean(0) for n in others], axis=0
    )


def nothing(task: Task, seed: int, options: dict) -> Iterator[tuple[str, Answer]]:
    """Control cells as they are."""
    yield "no effect", Answer(task.logs()[task.under(CONTROL)].mean(0), np.nan, 0.0)


def gene_space(task: Task, seed: int, options: dict) -> Iterator[tuple[str, Answer]]:
    """The shift of the genes themselves."""
    logs = task.logs()
    yield "gene-space shift", Answer(logs[task.under(CONTROL)].mean(0) + shift(task, logs), np.nan, 0.0)


def pca(task: Task, seed: int, options: dict) -> Iterator[tuple[str, Answer]]:
    """The shift of principal components, and back."""
    start = time.process_time()
    logs = task.logs()
    centre = logs.mean(0)
    axes = np.linalg.svd(logs - centre, full_matrices=False)[2][:N_COMPONENTS]
    scores = (logs - centre) @ axes.T
    mean = centre + (scores[task.under(CONTROL)].mean(0) + shift(task, scores)) @ axes
    yield "PCA + shift", Answer(mean, np.nan, time.process_time() - start)


def ask(task: Task, key: str, balance: str, seed: int) -> ad.AnnData:
    """`tl.predict_perturbation` for the held-out type."""
    options = {"source": CONTROL, "target": STIMULATED, "cell_type_key": TYPE, "cell_types": task.held_out}
    return sv.tl.predict_perturbation(task.train, CONDITION, balance=balance, key=key, random_state=seed, **options)


def inside(predicted: ad.AnnData, key: str, real: np.ndarray) -> float:
    """Share of genes whose real mean lies in the interval."""
    table = predicted.uns[f"{key}_prediction"]["genes"]
    return float(((table["low"] <= real) & (real <= table["high"])).mean())


def scgen(task: Task, seed: int, options: dict) -> Iterator[tuple[str, Answer]]:
    """`tl.scgen`, with differences within types and with scGen's own resampling."""
    start = time.process_time()
    sv.tl.scgen(task.train, target_sum=task.total, random_state=seed, normalized=False, progress=False, **options)
    seconds = time.process_time() - start
    for balance, name in (("within", "`tl.scgen`"), ("resample", "`tl.scgen`, `resample`")):
        new = ask(task, "scgen", balance, seed)
        yield name, Answer(new.X.mean(0), inside(new, "scgen", task.real.mean(0)), seconds)


def scvi(task: Task, seed: int, options: dict) -> Iterator[tuple[str, Answer]]:
    """`tl.scvi`, which is not given the condition."""
    start = time.process_time()
    sv.tl.scvi(task.train, random_state=seed, normalized=False, progress=False, **options)
    seconds = time.process_time() - start
    new = ask(task, "scvi", "within", seed)
    depth = np.asarray(task.train.X[task.under(CONTROL)].sum(1))
    theta = task.train.var["scvi_dispersion"].to_numpy(float)
    mu = new.X.astype(float) / 1e4 * depth
    drawn = np.random.default_rng(seed).negative_binomial(theta, theta / (theta + mu))
    shares = np.expm1(task.real) / np.expm1(task.real).sum(1, keepdims=True)
    hit = inside(new, "scvi", 1e4 * shares.mean(0))
    yield "`tl.scvi` + shift", Answer(log_normalized(drawn, task.total).mean(0), hit, seconds)


SYSTEMS: dict[str, Callable[[Task, int, dict], Iterator[tuple[str, Answer]]]] = {
    "nothing": nothing,
    "gene_space": gene_space,
    "pca": pca,
    "scgen": scgen,
    "scvi": scvi,
}
NAMES = ["no effect", "gene-space shift", "PCA + shift", "`tl.scgen`, `resample`", "`tl.scgen`", "`tl.scvi` + shift"]
RANDOM = ("scgen", "scvi")


def r2(predicted: np.ndarray, real: np.ndarray) -> float:
    """Squared Pearson correlation; NaN where nothing varies."""
    return float(np.corrcoef(predicted, real)[0, 1] ** 2) if np.ptp(predicted) > 0 else np.nan


def score(task: Task, predicted: np.ndarray) -> dict[str, float]:
    """Agreement of means, and of their differences from the control cells."""
    control, real = task.logs()[task.under(CONTROL)], task.real
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.nan_to_num(stats.ttest_ind(real, control, equal_var=False).statistic)
    order = np.argsort(t, kind="stable")
    top = np.r_[order[: N_TOP // 2], order[-N_TOP // 2 :]]
    before, after = control.mean(0), real.mean(0)
    return {
        "all": r2(predicted, after),
        "top": r2(predicted[top], after[top]),
        "difference": r2(predicted - before, after - before),
        "difference_top": r2((predicted - before)[top], (after - before)[top]),
        "error": float(np.sqrt(((predicted - after) ** 2).mean())),
    }


def table(lines: list[dict]) -> str:
    """Means over types, each the mean over seeds; then each type by itself."""
    shown = {
        "all": "R², all genes",
        "top": "R², top 100",
        "difference": "R² of the difference",
        "difference_top": "the same, top 100",
        "error": "root mean squared error",
        "inside": "in interval",
        "seconds": "CPU s",
    }
    systems = [name for name in NAMES if any(x["system"] == name for x in lines)]
    held_out = sorted({x["held_out"] for x in lines})

    def mean(system: str, column: str, name: str) -> float:
        found = [x[column] for x in lines if (x["system"], x["held_out"]) == (system, name) and x[column] is not None]
        return float(np.mean(found)) if found else np.nan

    rows = [f"| system | {' | '.join(shown.values())} |", "|" + "---|" * (1 + len(shown))]
    for system in systems:
        values = [np.mean([mean(system, column, name) for name in held_out]) for column in shown]
        cells = [
            "–" if np.isnan(v) else f"{v:.0f}" if c == "seconds" else f"{v:.3f}"
            for c, v in zip(shown, values, strict=True)
        ]
        rows.append(f"| {system} | {' | '.join(cells)} |")
    rows += ["", f"| held out | {' | '.join(systems)} |", "|" + "---|" * (1 + len(systems))]
    for name in held_out:
        pairs = [
            f"{mean(s, 'all', name):.3f} / {mean(s, 'top', name):.3f} / {mean(s, 'difference', name):.3f}"
            for s in systems
        ]
        rows.append(f"| {name} | {' | '.join(pairs)} |")
    return "\n".join(rows)


def measure(args: argparse.Namespace, done: set[tuple]) -> None:
    """Append what is missing."""
    adata = ad.read_h5ad(Path(os.environ["SCANPY_SCVI_DATA"]) / "kang_pbmc_ifnb.h5ad", backed="r")
    held_out = args.types or types(adata)
    adata.file.close()
    for name in held_out[:1] if args.quick else held_out:
        task = load(name, 300 if args.quick else args.genes)
        for system, run in SYSTEMS.items():
            for seed in args.seeds[: 1 if args.quick or system not in RANDOM else None]:
                if (name, seed, system) in done:
                    continue
                lines = []
                for shown, answer in run(task, seed, QUICK if args.quick else {}):
                    line = {"held_out": name, "seed": seed, "run": system, "system": shown, **score(task, answer.mean)}
                    line |= {"inside": answer.inside, "seconds": answer.seconds, "n_real": len(task.real)}
                    lines.append({k: None if v != v else v for k, v in line.items()})
                with args.out.open("a") as file:
                    file.writelines(json.dumps(line) + "\n" for line in lines)
                print(*lines, sep="\n", flush=True)


def main() -> None:
    """Measure what is missing, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--types", nargs="+", help="types to hold out; by default all with enough cells")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sc.settings.verbosity = 0
    lines = [json.loads(x) for x in args.out.read_text().splitlines()] if args.out.exists() else []
    if args.table:
        print(table(lines))
    else:
        measure(args, {(x["held_out"], x["seed"], x["run"]) for x in lines})


if __name__ == "__main__":
    main()
