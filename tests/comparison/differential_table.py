"""Differential expression against microarrays of sorted cells: ours, scvi-tools', and scanpy's tests.

    SCANPY_SCVI_DATA=... python tests/comparison/differential_table.py --out de.jsonl \
        --systems ours scanpy peer --seeds 0 1 2 3 4

Truth are limma's results of bulk microarrays (`microarray_de_pbmc.csv.gz`, used by Lopez et al. 2018): CD8 against
CD4 T cells (in `pbmc_facs` and `pbmc3k`) and dendritic against B cells (in `pbmc3k`, two studies). Genes: those on
the array with counts in at least 1 % of the cells, which is also all that models and tests see. For each comparison:
Spearman correlation of the log fold changes over all these genes and over the significant ones, and ROC and PR areas
with which the size of the evidence finds the genes with an adjusted P below 0.05. Ours is by the scores, unless it says
by probability; scvi-tools' by its probability, or the size of its Bayes factor. Appends JSON lines, skips those that
are there, and prints means over seeds.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import scanpy as sc
from result_lines import append_line, read_lines
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

if TYPE_CHECKING:
    import anndata as ad

FOLDER = Path(os.environ.get("SCANPY_SCVI_DATA", "."))
DETECTED = 0.01
SIGNIFICANT = 0.05


class Question(NamedTuple):
    """Two groups of cells and the columns of the table that know the answer (group less reference)."""

    data: str
    truth: str
    group: tuple[str, ...]
    reference: tuple[str, ...]


QUESTIONS = (
    Question(
        "pbmc_facs",
        "CD",
        ("CD8+ Cytotoxic T", "CD8+/CD45RA+ Naive Cytotoxic"),
        ("CD4+ T Helper2", "CD4+/CD45RO+ Memory", "CD4+/CD25 T Reg", "CD4+/CD45RA+/CD25- Naive T"),
    ),
    Question("pbmc3k", "CD", ("CD8 T",), ("Naive CD4 T", "Memory CD4 T")),
    Question("pbmc3k", "BDC", ("DC",), ("B",)),
    Question("pbmc3k", "BDC2", ("DC",), ("B",)),
)


def load(name: str) -> ad.AnnData:
    """Counts of the genes of the array that enough cells have."""
    adata = sc.read_h5ad(FOLDER / f"{name}.h5ad")
    on_array = pd.read_csv(FOLDER / "microarray_de_pbmc.csv.gz")["GS"]
    adata = adata[:, adata.var_names.isin(on_array)].copy()
    sc.pp.filter_genes(adata, min_cells=int(np.ceil(DETECTED * adata.n_obs)))
    sc.pp.filter_cells(adata, min_counts=1)
    return adata


Tables = dict[str, list[pd.DataFrame]]
"""For each system, its table for each question: `lfc` and the size of the evidence."""


def by_ours(adata: ad.AnnData, questions: list[Question], seed: int) -> Tables:
    """Fit once, ask every question in both modes, and take the probability as evidence too."""
    import scanpy_scvi as sv

    sv.tl.scvi(adata, normalized=False, progress=False, random_state=seed)
    tables: Tables = {"ours": [], "ours, by probability": [], "ours, vanilla": []}
    for question in questions:
        label(adata, question)
        options = {"groups": ["group"], "reference": "reference", "random_state": seed, "min_counts": 0}
        sv.tl.rank_genes_groups(adata, "side", **options)
        found = sv.get.rank_genes_groups_df(adata).set_index("names")
        for system, evidence in (("ours", found["scores"].abs()), ("ours, by probability", found["proba_de"])):
            tables[system].append(pd.DataFrame({"lfc": found["lfc_mean"], "evidence": evidence}))
        sv.tl.rank_genes_groups(adata, "side", mode="vanilla", **options)
        found = sv.get.rank_genes_groups_df(adata).set_index("names")
        tables["ours, vanilla"].append(
            pd.DataFrame({"lfc": found["lfc_mean"], "evidence": found["bayes_factor"].abs()})
        )
    return tables


def by_peer(adata: ad.AnnData, questions: list[Question], seed: int) -> Tables:
    """The same with scvi-tools and its defaults."""
    import scvi

    scvi.settings.seed = seed
    scvi.model.SCVI.setup_anndata(adata)
    model = scvi.model.SCVI(adata)
    model.train(accelerator="cpu", enable_progress_bar=False)
    tables: Tables = {"scvi-tools, change": [], "scvi-tools, vanilla": []}
    for question in questions:
        label(adata, question)
        options = {"groupby": "side", "group1": "group", "group2": "reference", "silent": True}
        found = model.differential_expression(mode="change", **options)
        tables["scvi-tools, change"].append(pd.DataFrame({"lfc": found["lfc_mean"], "evidence": found["proba_de"]}))
        found = model.differential_expression(mode="vanilla", **options)
        lfc = np.log2(found["scale1"] / found["scale2"])
        tables["scvi-tools, vanilla"].append(pd.DataFrame({"lfc": lfc, "evidence": found["bayes_factor"].abs()}))
    return tables


def by_scanpy(adata: ad.AnnData, questions: list[Question], seed: int) -> Tables:
    """scanpy's tests on log-normalised counts; there is nothing random in them."""
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    tables: Tables = {"wilcoxon": [], "t-test": []}
    for question in questions:
        label(adata, question)
        for method in tables:
            sc.tl.rank_genes_groups(adata, "side", groups=["group"], reference="reference", method=method)
            found = sc.get.rank_genes_groups_df(adata, "group").set_index("names")
            tables[method].append(pd.DataFrame({"lfc": found["logfoldchanges"], "evidence": found["scores"].abs()}))
    return tables


SYSTEMS = {"ours": by_ours, "peer": by_peer, "scanpy": by_scanpy}


def label(adata: ad.AnnData, question: Question) -> None:
    """Name the cells of the two sides; others have no group."""
    cell_type = adata.obs["cell_type"]
    sides = np.select(
        [cell_type.isin(question.group), cell_type.isin(question.reference)], ["group", "reference"], "other"
    )
    adata.obs["side"] = pd.Categorical(sides)


def score(found: pd.DataFrame, question: Question) -> dict[str, float]:
    """Agreement with the microarrays."""
    truth = pd.read_csv(FOLDER / "microarray_de_pbmc.csv.gz").drop_duplicates("GS").set_index("GS")
    genes = truth.index.intersection(found.index)
    truth, found = truth.loc[genes], found.loc[genes]
    is_de = truth[f"{question.truth}_adj.P.Val"] < SIGNIFICANT
    return {
        "genes": len(genes),
        "significant": int(is_de.sum()),
        "spearman": float(spearmanr(truth[f"{question.truth}_logFC"], found["lfc"]).statistic),
        "spearman_significant": float(
            spearmanr(truth.loc[is_de, f"{question.truth}_logFC"], found.loc[is_de, "lfc"]).statistic
        ),
        "roc": float(roc_auc_score(is_de, found["evidence"])),
        "pr": float(average_precision_score(is_de, found["evidence"])),
    }


def markdown(lines: list[dict]) -> str:
    """Means and standard deviations over seeds."""
    rows = ["| data, truth | system | seeds | Spearman | of the significant | ROC | PR | CPU s |", "|" + "---|" * 8]
    order = {
        name: i for i, name in enumerate(["ours", "scvi-tools, change", "scvi-tools, vanilla", "wilcoxon", "t-test"])
    }
    for question in dict.fromkeys((x["data"], x["truth"]) for x in lines):
        some = [x for x in lines if (x["data"], x["truth"]) == question]
        name = f"`{question[0]}`, {question[1]}"
        for system in sorted({x["system"] for x in some}, key=lambda s: (order.get(s, 0), s)):
            found = [x for x in some if x["system"] == system]
            columns = [[x[k] for x in found] for k in ("spearman", "spearman_significant", "roc", "pr")]
            cells = [f"{np.mean(c):.3f}" + (f"\u00a0±\u00a0{np.std(c):.3f}" if len(c) > 1 else "") for c in columns]
            cpu = f"{np.mean([x['cpu_seconds'] for x in found]):.0f}"
            rows.append("| " + " | ".join([name, system, str(len(found)), *cells, cpu]) + " |")
            name = ""
    return "\n".join(rows)


def main() -> None:
    """Measure what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--systems", nargs="+", default=["ours", "scanpy"], choices=SYSTEMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=range(5))
    args = parser.parse_args()
    warnings.filterwarnings("ignore")  # the peer's advice on workers and devices
    sc.settings.verbosity = 0
    lines = read_lines(args.out)
    done = {(x["data"], x["by"], x["seed"]) for x in lines}
    for by, seed, data in product(args.systems, args.seeds, dict.fromkeys(q.data for q in QUESTIONS)):
        if (data, by, seed) in done or (by == "scanpy" and seed != args.seeds[0]):
            continue
        questions = [q for q in QUESTIONS if q.data == data]
        start = time.process_time()
        found = SYSTEMS[by](load(data), questions, seed)
        common = {"data": data, "by": by, "seed": seed, "cpu_seconds": time.process_time() - start}
        for system, tables in found.items():
            for question, table in zip(questions, tables, strict=True):
                lines.append(common | {"system": system, "truth": question.truth} | score(table, question))
                append_line(args.out, lines[-1])
    print(markdown(lines))


if __name__ == "__main__":
    main()
