"""Does the expected share of false discoveries come true? Simulations with known changes.

    SCANPY_SCVI_DATA=... python tests/comparison/calibration.py --out calibration.jsonl --seeds 0 1 2 3 4
    python tests/comparison/calibration.py --out calibration.jsonl --plot docs/_static/calibration.png

`model`: a fit of real cells is taken for the truth. Counts are drawn from it, at the proportions that it expects of
each cell and with its dispersions; the model is fitted again to these counts, and the two largest cell types are
compared. A gene changes where the log2 ratio of the types' true mean proportions is at least delta.

`real counts`: cells of one type are split at random into two groups, and the counts of a tenth of the genes are thinned
in one of them, each molecule kept with probability 2^-change, changes from 0.5 to 3 (as Gerard 2020, BMC Bioinformatics
21:206, does to bulk counts). The noise is that of real cells, which is not the model's.

For each target: genes called, the share of them that does not change, or the other way (realised FDR; 0 where none is
called), and the share of the changing genes that is called (power): with the defaults, without residuals (the procedure
of Lopez et al. and Boyeau et al.), and with importance weights.
"""

from __future__ import annotations

import argparse
import json
import os
from itertools import product
from pathlib import Path
from typing import NamedTuple

import anndata as ad
import numpy as np
import scanpy as sc
from result_lines import read_lines

import scanpy_scvi as sv

FOLDER = Path(os.environ.get("SCANPY_SCVI_DATA", "."))
TARGETS = (0.01, 0.05, 0.1, 0.2)
DELTA = 0.25
N_GENES = 2000
CHANGED = 0.1
MIN_COUNTS = 10


class Simulation(NamedTuple):
    """Counts of two groups, and the true log2 fold change of each gene."""

    adata: ad.AnnData
    lfc: np.ndarray


def real_cells(name: str) -> ad.AnnData:
    """The variable genes of a data set."""
    adata = sc.read_h5ad(FOLDER / f"{name}.h5ad")
    normalized = sc.pp.log1p(sc.pp.normalize_total(adata, copy=True), copy=True)
    sc.pp.highly_variable_genes(normalized, n_top_genes=N_GENES)
    return adata[:, normalized.var["highly_variable"]].copy()


def from_the_model(name: str, seed: int) -> Simulation:
    """Counts drawn from a fitted model, cell by cell."""
    rng = np.random.default_rng(seed)
    adata = real_cells(name)
    adata = adata[np.asarray(adata.X.sum(1)).ravel() > 0].copy()
    sv.tl.scvi(adata, normalized=False, progress=False, random_state=seed)
    rho = sv.tl.normalized_expression(adata, library_size=1.0, inplace=False).to_numpy(float)
    total = np.asarray(adata.X.sum(1))
    theta = adata.var["scvi_dispersion"].to_numpy()
    mean = total.reshape(-1, 1) * rho
    drawn = ad.AnnData(rng.poisson(mean * rng.gamma(theta, 1 / theta, mean.shape)).astype(np.float32))
    largest = adata.obs["cell_type"].value_counts().index[:2]
    sides = [(adata.obs["cell_type"] == name).to_numpy() for name in largest]
    drawn.obs["group"] = np.select(sides, ["a", "b"], "other")
    drawn.var_names = adata.var_names
    kept = np.asarray(drawn.X.sum(1)).ravel() > 0
    lfc = np.log2(rho[sides[0]].mean(0) / rho[sides[1]].mean(0))
    return Simulation(sparse_counts(drawn[kept]), lfc)


def from_real_counts(name: str, seed: int) -> Simulation:
    """Two halves of one cell type with some counts thinned, among all other cells."""
    rng = np.random.default_rng(seed)
    adata = real_cells(name)
    largest = adata.obs["cell_type"].value_counts().index[0]
    group = np.where(rng.random(adata.n_obs) < 0.5, "a", "b")
    group[adata.obs["cell_type"] != largest] = "other"
    lfc = np.zeros(adata.n_vars)
    changed = rng.choice(adata.n_vars, int(CHANGED * adata.n_vars), replace=False)
    lfc[changed] = rng.choice([-1, 1], len(changed)) * rng.uniform(0.5, 3, len(changed))
    x = adata.X.toarray()
    for side, sign in (("a", -1), ("b", 1)):
        keep = 2.0 ** -np.maximum(sign * lfc, 0)  # the side where the gene is lower loses molecules
        x[group == side] = rng.binomial(x[group == side].astype(int), keep)
    adata = ad.AnnData(x, obs={"group": group}, var=adata.var[[]])
    return Simulation(sparse_counts(adata[x.sum(1) > 0]), lfc)


def sparse_counts(adata: ad.AnnData) -> ad.AnnData:
    """A copy with compressed counts."""
    from scipy import sparse

    adata = adata.copy()
    adata.X = sparse.csr_matrix(adata.X)
    adata.obs_names_make_unique()
    return adata


PROCEDURES = {"default": {}, "without residuals": {"residuals": False}, "importance weights": {"weights": "importance"}}
SCENARIOS = {"model": from_the_model, "real counts": from_real_counts}


def measure(simulation: Simulation, seed: int, options: dict) -> list[dict[str, float]]:
    """Realised FDR and power at each target."""
    adata, lfc = simulation
    sides = {"groups": ["a"], "reference": "b", "delta": DELTA, "min_counts": MIN_COUNTS}
    sv.tl.rank_genes_groups(adata, "group", random_state=seed, **sides, **options)
    table = sv.get.rank_genes_groups_df(adata).set_index("names").loc[adata.var_names]
    counted = ((table["raw1"] * table["n_cells1"] + table["raw2"] * table["n_cells2"]) >= MIN_COUNTS).to_numpy()
    true = (np.abs(lfc) >= DELTA) & counted
    found = []
    for target in TARGETS:
        called = (table["fdr"] <= target).to_numpy() & counted
        wrong_side = called & true & (np.sign(table["lfc_mean"]) != np.sign(lfc))
        right = (called & true & ~wrong_side).sum()
        found.append(
            {
                "target": target,
                "called": int(called.sum()),
                "fdr": float(called.sum() - right) / max(called.sum(), 1),
                "power": float(right / true.sum()),
            }
        )
    return found


def plot(lines: list[dict], path: Path) -> None:
    """Realised against targeted share of false discoveries, and power."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(8, 6), sharex=True, sharey="row", layout="constrained")
    colors = dict(zip(PROCEDURES, ("#0072B2", "#D55E00", "#009E73"), strict=True))
    titles = {"model": "counts drawn from the model", "real counts": "changes planted in real counts"}
    for column, scenario in zip(axes.T, SCENARIOS, strict=True):
        column[0].plot([0, 0.22], [0, 0.22], color="#999999", linestyle="--", label="as promised")
        for shift, (procedure, color) in zip((-0.003, 0, 0.003), colors.items(), strict=True):
            for ax, field in zip(column, ("fdr", "power"), strict=True):
                chosen = [x for x in lines if (x["scenario"], x["procedure"]) == (scenario, procedure)]
                values = [[x[field] for x in chosen if x["target"] == t] for t in TARGETS]
                for target, found in zip(TARGETS, values, strict=True):
                    ax.plot([target + shift] * len(found), found, "o", color=color, alpha=0.3, markersize=4)
                ax.plot(np.add(TARGETS, shift), [np.mean(v) for v in values], "-o", color=color, label=procedure)
                ax.spines[["top", "right"]].set_visible(False)
        column[0].set_title(titles[scenario])
        column[1].set_xlabel("targeted FDR")
    axes[0, 0].set_ylabel("realised FDR")
    axes[1, 0].set_ylabel("power")
    axes[0, 0].legend(frameon=False)
    figure.savefig(path, dpi=150)


def markdown(lines: list[dict]) -> str:
    """Means and ranges over seeds and data sets."""
    rows = ["| truth | procedure | target | called | realised FDR | power |", "|" + "---|" * 6]
    keys = dict.fromkeys((x["scenario"], x["procedure"], x["target"]) for x in lines)
    for key in sorted(keys):
        some = [x for x in lines if (x["scenario"], x["procedure"], x["target"]) == key]
        fdr = [x["fdr"] for x in some]
        called, power = (np.mean([x[k] for x in some]) for k in ("called", "power"))
        rows.append(
            f"| {key[0]} | {key[1]} | {key[2]} | {called:.0f} | {np.mean(fdr):.3f} ({min(fdr):.3f}–{max(fdr):.3f}) "
            f"| {power:.2f} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Measure what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", nargs="+", default=["mouse_bladder", "paul15"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[])
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    sc.settings.verbosity = 0
    lines = read_lines(args.out)
    done = {(x["scenario"], x["data"], x["seed"]) for x in lines}
    for seed, scenario, name in product(args.seeds, SCENARIOS, args.data):
        if (scenario, name, seed) in done:
            continue
        simulation = SCENARIOS[scenario](name, seed)
        sv.tl.scvi(simulation.adata, normalized=False, progress=False, random_state=seed)
        for procedure, options in PROCEDURES.items():
            common = {"scenario": scenario, "data": name, "seed": seed, "procedure": procedure}
            lines += [common | found for found in measure(simulation, seed, options)]
            with args.out.open("a") as out:
                out.writelines(json.dumps(line) + "\n" for line in lines[-len(TARGETS) :])
    print(markdown(lines))
    if args.plot:
        plot(lines, args.plot)


if __name__ == "__main__":
    main()
