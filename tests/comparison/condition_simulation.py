"""Condition tests on simulated donors: false discoveries and power of ours, of pseudobulk, and of the cell-level rule.

    OMP_NUM_THREADS=1 python tests/comparison/condition_simulation.py --out conditions.jsonl --replicates 10
    python tests/comparison/condition_simulation.py --out conditions.jsonl --table --figure condition_test.png

A thousand genes have means and dispersions of real blood cells (NB fits to the largest cell type of
`sv.datasets.pbmc68k_counts`, drawn with replacement). Two cell types (60 and 40 %) differ in three genes of ten. Every
donor shifts every gene by a normal draw (natural logarithm, the same for both types) with a standard deviation of its
gene's own, around the scenario's (scaled inverse chi-square, 8 degrees of freedom); in paired designs the donor's
response varies too, by 1/sqrt(2) of it. In each type another tenth of the genes changes with the condition, by 0.5 to
1.5 log2 units, half of them down. Donors have a log-normal number of cells (median 300, sd 0.5, at least 60; paired:
half of it in each condition), cells a log-normal total (median 1,500, sd 0.4). In "two batches" each batch shifts every
gene by a normal draw of sd 0.3, and the sides are unequally spread over the batches.

Called for what did not change, or in the wrong direction, is a false discovery. A replicate's share of false
discoveries is over both types together, 0 where nothing is called. Appends JSON lines, skips those that are there.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import time
import warnings
from functools import cache
from pathlib import Path
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from result_lines import read_lines
from scipy import sparse

import scanpy_scvi as sv

TARGETS = (0.05, 0.1)
TYPES = ("type_0", "type_1")
SHARES = (0.6, 0.4)
N_GENES = 1000
CHANGED = 0.1


class Scenario(NamedTuple):
    """One set of conditions."""

    paired: bool
    donors: int
    """Donors in each condition."""
    donor_sd: float
    batches: bool = False

    @property
    def name(self) -> str:
        """Words for the table."""
        design = "paired" if self.paired else "unpaired"
        return f"{design}, two batches" if self.batches else design


SCENARIOS = (
    *(Scenario(paired, donors, 0.2) for paired in (False, True) for donors in (3, 5, 10)),
    Scenario(paired=False, donors=5, donor_sd=0.0),
    Scenario(paired=False, donors=5, donor_sd=0.5),
    Scenario(paired=True, donors=5, donor_sd=0.0),
    Scenario(paired=True, donors=5, donor_sd=0.5),
    Scenario(paired=False, donors=5, donor_sd=0.2, batches=True),
    Scenario(paired=False, donors=10, donor_sd=0.2, batches=True),
)


@cache
def real_genes() -> tuple[np.ndarray, np.ndarray]:
    """Proportions and inverse dispersions of the genes of real cells of one type."""
    adata = sv.datasets.pbmc68k_counts()
    adata = adata[adata.obs["bulk_labels"] == "Dendritic"].copy()
    sv.pp.fit_dispersion(adata)
    mean, theta = adata.var["marginal_mean"].to_numpy(), adata.var["marginal_dispersion"].to_numpy()
    seen = mean > 0.01
    return mean[seen] / mean.sum(), np.clip(theta[seen], 0.3, 50)


def simulate(scenario: Scenario, seed: int) -> tuple[ad.AnnData, np.ndarray]:
    """Counts, and the log2 fold changes of each type (types x genes)."""
    rng = np.random.default_rng([seed, *(int(100 * x) for x in scenario)])
    proportion, theta = real_genes()
    drawn = rng.integers(len(proportion), size=N_GENES)
    base = np.log(proportion[drawn]) + rng.normal(0, 0.2, N_GENES)
    sd = scenario.donor_sd * np.sqrt(8 / rng.chisquare(8, N_GENES))
    by_type = rng.normal(0, 0.8, (2, N_GENES)) * (rng.random((2, N_GENES)) < 0.3)
    by_batch = 0.3 * rng.normal(size=(2, N_GENES)) if scenario.batches else np.zeros((2, N_GENES))
    lfc = np.zeros((2, N_GENES))
    for change in lfc:
        hit = rng.choice(N_GENES, int(CHANGED * N_GENES), replace=False)
        change[hit] = rng.uniform(0.5, 1.5, len(hit)) * np.where(np.arange(len(hit)) % 2, 1, -1)
    counts, obs = [], []
    for donor in range(scenario.donors if scenario.paired else 2 * scenario.donors):
        own, response = rng.normal(0, 1, (2, N_GENES)) * sd
        size = max(60, int(rng.lognormal(np.log(300), 0.5)))
        for treated in (0, 1) if scenario.paired else (donor % 2,):
            # of five treated donors three are in the first batch, of five others two
            batch = int(donor // 2 % 5 >= (3 if treated else 2)) if scenario.batches else 0
            kind = rng.choice(2, size // 2 if scenario.paired else size, p=SHARES)
            shift = own + by_batch[batch] + (treated * response / np.sqrt(2) if scenario.paired else 0)
            rho = np.exp(base + by_type[kind] + shift + treated * np.log(2) * lfc[kind])
            mean = rng.lognormal(np.log(1500), 0.4, len(kind))[:, None] * rho / rho.sum(1, keepdims=True)
            counts.append(sparse.csr_array(rng.poisson(rng.gamma(theta[drawn], mean / theta[drawn]))))
            columns = {
                "donor": f"donor_{donor:02d}",
                "condition": ("control", "treated")[treated],
                "batch": f"b{batch}",
            }
            obs.append(pd.DataFrame({**columns, "cell_type": np.array(TYPES)[kind]}))
    table = pd.concat(obs, ignore_index=True).astype("category")
    table.index = [f"cell_{i}" for i in range(len(table))]
    adata = ad.AnnData(sparse.csr_matrix(sparse.vstack(counts), dtype=np.float32), obs=table)
    adata.var_names = [f"gene_{g}" for g in range(N_GENES)]
    return adata, lfc


Found = dict[str, pd.DataFrame]
"""For each type, a table by gene with `lfc` and `fdr`, the quantity that is held below the target."""


def by_condition_test(adata: ad.AnnData, scenario: Scenario, **options: object) -> Found:
    """Ours."""
    sv.tl.condition_test(adata, "condition", donor_key="donor", reference="control", groupby="cell_type", **options)
    table = sv.get.condition_test_df(adata).set_index("names")
    return {name: part.assign(lfc=part["lfc_donors"]) for name, part in table.groupby("group", observed=True)}


def pseudobulk(cells: ad.AnnData, design: str, contrast: list[str]) -> pd.DataFrame:
    """pydeseq2 on sums over the cells of each donor in each condition; a table by gene."""
    from pydeseq2.dds import DeseqDataSet
    from pydeseq2.ds import DeseqStats

    columns = [c.strip() for c in design.strip("~").split("+")]
    units = cells.obs[[*dict.fromkeys([*columns, "donor"])]].astype(str)
    code, first = pd.factorize(units.agg("|".join, axis=1))
    members = sparse.csr_array((np.ones(len(code)), (code, np.arange(len(code)))))
    summed = pd.DataFrame((members @ cells.X).toarray().astype(int), index=first, columns=cells.var_names)
    metadata = pd.DataFrame([n.split("|") for n in first], index=first, columns=units.columns)
    summed = summed.loc[:, summed.sum() >= 10]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        data = DeseqDataSet(counts=summed, metadata=metadata, design=design, quiet=True, n_cpus=1)
        data.deseq2()
        stats = DeseqStats(data, contrast=contrast, quiet=True, n_cpus=1)
        stats.summary()
    table = stats.results_df
    return pd.DataFrame({"lfc": table["log2FoldChange"], "fdr": table["padj"].fillna(1.0)})


def by_pseudobulk(adata: ad.AnnData, scenario: Scenario) -> Found:
    """The established way."""
    design = "~" + ("donor + " if scenario.paired else "batch + " if scenario.batches else "") + "condition"
    contrast = ["condition", "treated", "control"]
    return {name: pseudobulk(adata[adata.obs["cell_type"] == name], design, contrast) for name in TYPES}


def by_cells(adata: ad.AnnData, scenario: Scenario) -> Found:
    """The rule that takes cells for replicates."""
    adata.obs["side"] = (adata.obs["cell_type"].astype(str) + " " + adata.obs["condition"].astype(str)).astype(
        "category"
    )
    found = {}
    for name in TYPES:
        sv.tl.rank_genes_groups(adata, "side", groups=[f"{name} treated"], reference=f"{name} control")
        table = sv.get.rank_genes_groups_df(adata).set_index("names")
        found[name] = pd.DataFrame({"lfc": table["lfc_mean"], "fdr": table["fdr"]})
    return found


def by_denoised_spread(adata: ad.AnnData, scenario: Scenario) -> Found:
    """What not to do: the model's expression of each donor, and the variance between donors in it."""
    from scanpy_scvi.posterior.donor_levels import pseudocount, relative_to_typical, well_seen
    from scanpy_scvi.posterior.donors import Design, Question, compare_donors

    sv.tl.normalized_expression(adata, library_size=1.0)
    found = {}
    for name in TYPES:
        units = adata.obs[adata.obs["cell_type"] == name].groupby(["condition", "donor"], observed=True).indices
        cells = adata[adata.obs["cell_type"] == name]
        counts = np.stack([np.asarray(cells.X[rows].sum(0)).ravel() for rows in units.values()])
        means = np.stack([cells.layers["scvi_normalized"][rows].mean(0) for rows in units.values()])
        levels = relative_to_typical(np.log2(means + pseudocount(counts.sum(1))), counts)
        treated = np.array([condition == "treated" for condition, _ in units])  # donors in the same order on both sides
        shares = np.stack([pd.get_dummies(cells.obs["batch"].iloc[rows]).mean() for rows in units.values()])
        design = Design(np.flatnonzero(treated), np.flatnonzero(~treated), scenario.paired, shares)
        answer = compare_donors(
            design.shift(levels),
            design.variance(levels),
            design,
            level=levels.mean(0),
            tested=counts.sum(0) >= 10,
            well_seen=well_seen(counts),
            question=Question(delta=0.25, fdr_target=0.05, interval=0.95),
        )
        found[name] = pd.DataFrame({"lfc": answer.shift, "fdr": answer.fdr}, index=adata.var_names)
    return found


METHODS = {
    "condition_test": by_condition_test,
    'condition_test, level="denoised"': lambda a, s: by_condition_test(a, s, level="denoised"),
    "denoised, its own spread": by_denoised_spread,
    "pydeseq2 on pseudobulk": by_pseudobulk,
    "rank_genes_groups on cells": by_cells,
    "condition_test, batch_correction=False": lambda a, s: by_condition_test(a, s, batch_correction=False),
}
UNCORRECTED = "condition_test, batch_correction=False"
"""Where there are batches."""


def score(found: Found, lfc: np.ndarray, target: float) -> dict[str, float]:
    """Share of false discoveries, and of the changed genes that are found."""
    called = right = 0
    for name, truth in zip(TYPES, lfc, strict=True):
        table = found[name]
        changed = pd.Series(truth, index=[f"gene_{g}" for g in range(N_GENES)]).loc[table.index]
        is_called = table["fdr"].to_numpy() <= target
        called += int(is_called.sum())
        right += int((is_called & (np.sign(table["lfc"]) == np.sign(changed)) & (changed != 0)).sum())
    return {"called": called, "fdp": (called - right) / max(called, 1), "power": right / int((lfc != 0).sum())}


def run(scenario: Scenario, seed: int, names: list[str]) -> list[dict]:
    """Simulate, fit once, ask the methods."""
    adata, lfc = simulate(scenario, seed)
    sv.tl.scvi(adata, "batch" if scenario.batches else None, normalized=False, progress=False, random_state=seed)
    lines = []
    for name in names:
        start = time.process_time()
        found = METHODS[name](adata, scenario)
        line = {**scenario._asdict(), "seed": seed, "method": name, "cells": adata.n_obs}
        line["cpu_seconds"] = time.process_time() - start
        lines += [{**line, "target": target, **score(found, lfc, target)} for target in TARGETS]
    return lines


def table(lines: list[dict]) -> str:
    """Markdown: means and standard deviations over replicates."""
    head = ["design, donors a side, their sd", "method"]
    head += [f"{word} at {target}" for target in TARGETS for word in ("FDR", "power")]
    rows = ["| " + " | ".join([*head, "CPU s"]) + " |", "|" + "---|" * (len(head) + 1)]
    for scenario in SCENARIOS:
        name = f"{scenario.name}, {scenario.donors}, {scenario.donor_sd:g}"
        for method in METHODS:
            found = select(lines, scenario, method)
            if not found:
                continue
            cells = [name, method]
            for target in TARGETS:
                of = [x for x in found if x["target"] == target]
                cells += [
                    f"{np.mean([x[k] for x in of]):.3f}\u00a0±\u00a0{np.std([x[k] for x in of]):.2f}"
                    for k in ("fdp", "power")
                ]
            cells.append(f"{np.mean([x['cpu_seconds'] for x in found]):.1f}")
            rows.append("| " + " | ".join(cells) + " |")
            name = ""
    return "\n".join(rows)


def select(lines: list[dict], scenario: Scenario, method: str) -> list[dict]:
    """Lines of a scenario and method."""
    return [x for x in lines if x["method"] == method and all(x[k] == v for k, v in scenario._asdict().items())]


def figure(lines: list[dict], path: Path) -> None:
    """False discoveries and power against the number of donors, unpaired and paired, at the first target."""
    import matplotlib.pyplot as plt

    from scanpy_scvi.pl._axes import PALETTE

    fig, axes = plt.subplots(2, 2, figsize=(7.5, 5.2), sharex=True, sharey="row", layout="constrained")
    for column, paired in enumerate((False, True)):
        scenarios = [s for s in SCENARIOS if s.paired == paired and s.donor_sd == 0.2 and not s.batches]
        for i, method in enumerate(m for m in METHODS if m != UNCORRECTED):
            of = [[x for x in select(lines, s, method) if x["target"] == TARGETS[0]] for s in scenarios]
            x = np.arange(len(scenarios)) + 0.06 * (i - 2)
            for ax, key in zip(axes[:, column], ("fdp", "power"), strict=True):
                mean, sd = (np.array([f([line[key] for line in found]) for found in of]) for f in (np.mean, np.std))
                ax.errorbar(x, mean, yerr=sd, color=PALETTE[i], marker="osvD^"[i], ms=5, lw=1.5, label=method)
        axes[0, column].axhline(TARGETS[0], color="0.4", lw=1, ls="--", zorder=0)
        axes[0, column].set_title("paired" if paired else "unpaired")
        axes[1, column].set_xlabel("donors in each condition")
        axes[1, column].set_xticks(range(len(scenarios)), [str(s.donors) for s in scenarios])
    axes[0, 0].set_ylabel("false discoveries")
    axes[1, 0].set_ylabel("power")
    axes[0, 0].set_ylim(0, None)
    axes[1, 0].set_ylim(0, 1)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    fig.savefig(path, dpi=150)


def main() -> None:
    """Measure what is missing, print the table, draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file of JSON lines, added to")
    parser.add_argument("--replicates", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="seed of the first replicate")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--figure", type=Path, help="picture to draw")
    args = parser.parse_args()
    sc.settings.verbosity = 0
    lines = read_lines(args.out)
    done = {(*(x[k] for k in Scenario._fields), x["seed"], x["method"]) for x in lines}
    for seed in range(args.first, args.first + args.replicates) if not args.table else []:
        for scenario in SCENARIOS:
            asked = [m for m in args.methods if scenario.batches or m != UNCORRECTED]
            if names := [m for m in asked if (*scenario, seed, m) not in done]:
                lines += (new := run(scenario, seed, names))
                with args.out.open("a") as out:
                    out.write("".join(json.dumps(line) + "\n" for line in new))
    print(table(lines))
    if args.figure:
        figure(lines, args.figure)


if __name__ == "__main__":
    main()
