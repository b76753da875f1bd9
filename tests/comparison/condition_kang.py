"""Condition tests on blood cells of eight patients, with and without interferon beta, beside pydeseq2 on pseudobulk.

    SCANPY_SCVI_DATA=... OMP_NUM_THREADS=1 python tests/comparison/condition_kang.py

Prints two tables. The known answer: genes called in each cell type (paired, seven or eight patients, where three have
ten cells in both conditions), whether the six genes that interferon raises most are among them, and how many of the
other's calls each shares. The null: untreated cells alone, ten of the ways to split the patients in two halves; every
call is false.
"""

from __future__ import annotations

import argparse
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scanpy as sc
from condition_simulation import pseudobulk

import scanpy_scvi as sv

if TYPE_CHECKING:
    import anndata as ad

RAISED = ["CXCL10", "IFIT1", "IFIT3", "RSAD2", "ISG15", "MX1"]
TARGET = 0.05
SPLITS = 10


def load() -> ad.AnnData:
    """Cells with a known donor, and one fit to them."""
    adata = sc.read_h5ad(Path(os.environ.get("SCANPY_SCVI_DATA", ".")) / "kang_pbmc_ifnb.h5ad")
    adata = adata[adata.obs["donor"] != "unassigned"].copy()
    sv.tl.scvi(adata, normalized=False, progress=False)
    return adata


def called(adata: ad.AnnData, name: str, condition: str, reference: str, design: str) -> tuple[pd.DataFrame, set[str]]:
    """Our table of one cell type, and the genes that pydeseq2 calls on the same donors."""
    call = {"donor_key": "donor", "groupby": "cell_type", "groups": [name], "reference": reference}
    sv.tl.condition_test(adata, condition, **call)
    ours = sv.get.condition_test_df(adata).set_index("names")
    cells = adata[adata.obs["cell_type"] == name]
    side = next(c for c in cells.obs[condition].unique() if c != reference)
    size = cells.obs.groupby([condition, "donor"], observed=True).size()
    enough = size[size >= 10].index
    if ours["paired"].iloc[0]:
        both = set(enough.get_level_values(1)[enough.get_level_values(0) == side])
        enough = enough[
            enough.get_level_values(1).isin(both & set(size.loc[reference][size.loc[reference] >= 10].index))
        ]
    keep = pd.MultiIndex.from_frame(cells.obs[[condition, "donor"]]).isin(enough)
    theirs = pseudobulk(cells[keep], design, [condition, side, reference])
    return ours, set(theirs.index[theirs["fdr"] <= TARGET])


def known_answer(adata: ad.AnnData) -> str:
    """Markdown: what is called with interferon."""
    rows = ["| cells | patients | called | up | of the six | pydeseq2 | of the six | in both |", "|" + "---|" * 8]
    for name in adata.obs["cell_type"].cat.categories:
        try:
            ours, theirs = called(adata, name, "condition", "ctrl", "~donor + condition")
        except ValueError:
            continue  # too few donors
        if ours["donors1"].iloc[0] < 3:
            continue
        found = set(ours.index[ours["is_de"]])
        up = int((ours["is_de"] & (ours["lfc"] > 0)).sum())
        known = [len(found.intersection(RAISED)), len(theirs.intersection(RAISED))]
        cells = [name, ours["donors1"].iloc[0], len(found), up, known[0], len(theirs), known[1], len(found & theirs)]
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def null(adata: ad.AnnData, name: str) -> str:
    """A row: calls between random halves of the untreated patients."""
    control = adata[(adata.obs["condition"] == "ctrl") & (adata.obs["cell_type"] == name)].copy()
    size = control.obs["donor"].value_counts()
    donors = sorted(size.index[size >= 10])
    halves = [h for h in itertools.combinations(donors, len(donors) // 2) if donors[0] in h or len(donors) % 2]
    halves = halves[:: -(-len(halves) // SPLITS)]
    counts = []
    for half in halves:
        control.obs["half"] = np.where(control.obs["donor"].isin(half), "one", "other")
        ours, theirs = called(control, name, "half", "other", "~half")
        counts.append((int(ours["is_de"].sum()), len(theirs)))
    ours, theirs = np.array(counts).T
    shown = [f"{x.mean():.1f} (median {np.median(x):.0f}, at most {x.max()})" for x in (ours, theirs)]
    return f"| {name} | {len(donors)} | {len(halves)} | {shown[0]} | {shown[1]} |"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--null", nargs="+", default=["CD14+ Monocytes", "CD4 T cells"], help="cell types of the null")
    args = parser.parse_args()
    sc.settings.verbosity = 0
    adata = load()
    print(known_answer(adata), end="\n\n")
    print("| cells | patients | splits | calls | calls of pydeseq2 |\n|---|---|---|---|---|")
    for name in args.null:
        print(null(adata, name), flush=True)


if __name__ == "__main__":
    main()
