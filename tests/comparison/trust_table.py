"""How well `tl.trust` finds planted artefacts: the table "Trust" of the benchmarks page.

    SCANPY_SCVI_DATA=... python tests/comparison/trust_table.py --out trust.jsonl [--data paul15 ...] [--seeds 0 1 2]

Planted are, one kind at a time and 5 % of the cells: sums of two cells of different types and the same batch; the same
thinned to half their counts, so that they have the depth of one cell; and cells whose counts are permuted among the
genes. Scored in two ways: "in the fit", where the model has trained on them too, and "new", where a model of 80 % of
the intact cells judges the remaining 20 % together with artefacts made of these. Printed is the area under the ROC
curve with which the planted cells rank last, for each column by itself and for the combined trust, mean over seeds.
Appends JSON lines and skips those that are there.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import quality_data
import scanpy as sc
from result_lines import read_lines
from scipy import sparse
from sklearn.metrics import roc_auc_score

import scanpy_scvi as sv

KINDS = ("doublets", "doublets of one depth", "shuffled")
SHARE = 0.05
KEPT = 0.8
"""Share of the intact cells that the reference fit sees."""
TUNED_ON = ("paul15", "mouse_bladder", "worm_embryo")
REPORTED = ("pbmc3k", "kang_pbmc_ifnb", "cellmix_5batch")
LINEAGES = {"Naive CD4 T": "T", "Memory CD4 T": "T", "CD8 T": "T", "CD14+ Mono": "Mono", "FCGR3A+ Mono": "Mono"}
"""Subtypes that are one type here (pbmc3k): a doublet of two of them is not told from a cell."""
UNKNOWN = ("unlabelled", "unassigned")
COLUMNS = {"bound_percentile": 1, "novelty": -1, "latent_uncertainty": -1, "trust": 1}
"""Sign with which a column is low for what is not to be trusted."""


def plant(adata: ad.AnnData, types: np.ndarray, batch_key: str | None, kind: str, n: int, seed: int) -> ad.AnnData:
    """Make `n` artefacts of the cells of `adata`."""
    rng = np.random.default_rng(seed)
    counts = sparse.csr_matrix(adata.X)
    if kind == "shuffled":
        first = rng.choice(adata.n_obs, n, replace=n > adata.n_obs)
        planted = sparse.csr_matrix(np.stack([rng.permutation(counts[[i]].toarray()[0]) for i in first]))
    else:
        first, second = _pairs(types, None if batch_key is None else adata.obs[batch_key].astype(str), n, rng)
        planted = counts[first] + counts[second]
        if kind == "doublets of one depth":
            planted.data = rng.binomial(planted.data.astype(int), 0.5)
            planted.eliminate_zeros()
    result = ad.AnnData(planted.astype(np.float32), obs=adata.obs.iloc[first].copy(), var=adata.var[[]].copy())
    result.obs_names = [f"planted_{i}" for i in range(n)]
    return result[np.asarray(result.X.sum(1)).ravel() > 0].copy()


def _pairs(types: np.ndarray, batch: np.ndarray | None, n: int, rng: np.random.Generator) -> tuple[list, list]:
    """Cells of different types and one batch."""
    known = np.flatnonzero(~np.isin(types, UNKNOWN))
    batch = np.zeros(len(types)) if batch is None else np.asarray(batch)
    first, second = [], []
    while len(first) < n:
        a, b = rng.choice(known, 2)
        if types[a] != types[b] and batch[a] == batch[b]:
            first.append(a)
            second.append(b)
    return first, second


def areas(judged: ad.AnnData) -> dict[str, float]:
    """Area under the ROC curve of each column."""
    intact = ~judged.obs_names.str.startswith("planted_")
    return {name: float(roc_auc_score(intact, sign * judged.obs[f"scvi_{name}"])) for name, sign in COLUMNS.items()}


def measure(name: str, seed: int) -> list[dict]:
    """All kinds, both ways."""
    task = quality_data.TASKS[name]
    adata = quality_data.load(task)
    del adata.uns
    adata.obs_names = [f"cell_{i}" for i in range(adata.n_obs)]
    types = adata.obs[task.label_key].astype(str).replace(LINEAGES).to_numpy()
    options = {"batch_key": task.batch_key, "mask_var": None, "normalized": False, "progress": False}
    kept = np.random.default_rng(seed).random(adata.n_obs) < KEPT
    reference, rest = adata[kept].copy(), adata[~kept].copy()
    sv.tl.scvi(reference, **options, random_state=seed)
    n, lines = int(SHARE * adata.n_obs), []
    for kind in KINDS:
        both = ad.concat([adata, plant(adata, types, task.batch_key, kind, n, seed)])
        sv.tl.scvi(both, **options, random_state=seed)
        sv.tl.trust(both)
        new = ad.concat([rest, plant(rest, types[~kept], task.batch_key, kind, n, seed)])
        sv.tl.trust(new, reference=reference)
        for way, judged in (("in the fit", both), ("new", new)):
            lines.append({"data": name, "seed": seed, "kind": kind, "way": way} | areas(judged))
    return lines


def markdown(lines: list[dict]) -> str:
    """Means over seeds, and the range of the combined one."""
    rows = ["| data | planted | scored | bound | novelty | uncertainty | trust (range) |", "|" + "---|" * 7]
    for data, kind, way in dict.fromkeys((x["data"], x["kind"], x["way"]) for x in lines):
        found = [x for x in lines if (x["data"], x["kind"], x["way"]) == (data, kind, way)]
        means = {c: np.mean([x[c] for x in found]) for c in COLUMNS}
        low, high = (f([x["trust"] for x in found]) for f in (min, max))
        numbers = [f"{means[c]:.3f}" for c in list(COLUMNS)[:3]] + [f"**{means['trust']:.3f}** ({low:.3f}–{high:.3f})"]
        rows.append("| " + " | ".join([f"`{data}`", kind, way, *numbers]) + " |")
    return "\n".join(rows)


def main() -> None:
    """Measure what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", nargs="+", default=[*TUNED_ON, *REPORTED])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    sc.settings.verbosity = 0
    lines = read_lines(args.out)
    for name in args.data:
        for seed in args.seeds:
            if (name, seed) not in {(x["data"], x["seed"]) for x in lines}:
                lines += measure(name, seed)
                args.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(markdown([x for x in lines if x["data"] in args.data]))


if __name__ == "__main__":
    main()
