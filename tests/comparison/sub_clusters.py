"""Sub-clusters that mixture priors find within a labelled cell type, and how many seeds find them.

    SCANPY_SCVI_DATA=... OMP_NUM_THREADS=1 python tests/comparison/sub_clusters.py [--seeds 10] [--models scvae dgd]

`pbmc3k`, 2,000 genes, all cells in each fit, default components. The parts of a cell type are the components that hold
at least 5 % of its cells and 20 of them, each cell counted for its likeliest component; a type with a single one is not
split. Two parts of different seeds match where their Jaccard index is above 0.5. Beside them, Leiden on the latent
space of the same fits, and parts of the same sizes drawn at random. Markers are the first 20 genes that
`rank_genes_groups` calls as higher in the part than in the other parts of its type.
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

import scanpy_scvi as sv

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad

TYPES = ("CD14+ Mono", "B", "Memory CD4 T")
LEAST_SHARE, LEAST_CELLS = 0.05, 20
MATCH = 0.5
N_MARKERS = 20
Parts = dict[str, frozenset[int]]
"""Name of a part, and its cells."""
Markers = dict[str, tuple[str, ...]]


def load() -> ad.AnnData:
    """Counts with the most variable genes marked."""
    adata = sc.read_h5ad(Path(os.environ.get("SCANPY_SCVI_DATA", ".")) / "pbmc3k.h5ad")
    log = sc.pp.log1p(sc.pp.normalize_total(adata, target_sum=1e4, copy=True), copy=True)
    sc.pp.highly_variable_genes(log, n_top_genes=2000)
    adata.var["highly_variable"] = log.var["highly_variable"]
    return adata


def parts_of(clusters: np.ndarray, rows: np.ndarray) -> Parts:
    """Clusters of the cells `rows` of a type that are large enough to count; none where that is a single one."""
    found = pd.Series(rows).groupby(clusters[rows]).apply(frozenset)
    large = {str(name): part for name, part in found.items() if len(part) >= max(LEAST_SHARE * len(rows), LEAST_CELLS)}
    return large if len(large) > 1 else {}


def markers_of(adata: ad.AnnData, parts: Parts, key: str) -> Markers:
    """Genes called as higher in each part than in the other parts of the same type."""
    if not parts:
        return {}
    column = np.full(adata.n_obs, None, dtype=object)
    for name, part in parts.items():
        column[list(part)] = name
    adata.obs["part"] = pd.Categorical(column)
    sv.tl.rank_genes_groups(adata, "part", key=key, n_samples=2000)
    table = sv.get.rank_genes_groups_df(adata, key=f"rank_genes_groups_{key}", only_de=True)
    up = table[table["lfc_mean"] > 0].groupby("group", observed=True)["names"]
    return {name: tuple(up.get_group(name)[:N_MARKERS]) if name in up.groups else () for name in parts}


def jaccard(a: Sequence | frozenset, b: Sequence | frozenset) -> float:
    """Shared over all."""
    a, b = set(a), set(b)
    return len(a & b) / len(a | b) if a | b else 0.0


def best_match(part: frozenset[int], others: Parts) -> tuple[float, str]:
    """Largest Jaccard index with a part of another seed, and which it is."""
    return max(((jaccard(part, other), name) for name, other in others.items()), default=(0.0, ""))


def shuffled(parts: Parts, rows: np.ndarray, rng: np.random.Generator) -> Parts:
    """Parts of the same sizes, of cells drawn at random."""
    order, stops = rng.permutation(rows), np.cumsum([len(p) for p in parts.values()])
    return {name: frozenset(part) for name, part in zip(parts, np.split(order, stops), strict=False)}


def recurrence(seeds: list[Parts], markers: list[Markers]) -> dict[str, float]:
    """How many parts of a seed others have, and how many markers of a part those have in common with it."""
    shares, kept, same = [], [], []
    for i, parts in enumerate(seeds):
        for name, part in parts.items():
            matches = [(j, *best_match(part, seeds[j])) for j in range(len(seeds)) if j != i]
            hits = [(j, other) for j, overlap, other in matches if overlap > MATCH]
            shares.append(len(hits) / len(matches))
            mine = set(markers[i].get(name, ()))
            same += [len(mine & set(markers[j][other])) / len(mine) for j, other in hits if mine and markers[j]]
            kept.append(len(hits) >= 0.8 * len(matches))
    return {
        "split": np.mean([bool(p) for p in seeds]),
        "parts": np.mean([len(p) for p in seeds if p]) if any(seeds) else np.nan,
        "matched": np.mean(shares) if shares else np.nan,
        "in most seeds": np.mean(kept) if kept else np.nan,
        "markers shared": np.mean(same) if same else np.nan,
    }


def row(model: str, kind: str, n_cells: int, found: dict[str, float]) -> str:
    """Format one line of the table."""
    names = ("split", "parts", "matched", "in most seeds", "markers shared")
    values = ["–" if np.isnan(found[name]) else f"{found[name]:.{1 if name == 'parts' else 2}f}" for name in names]
    return f"| {kind} | {n_cells} | {model} | " + " | ".join(values) + " |"


def often(seeds: list[Parts], markers: list[Markers]) -> str:
    """The part that most seeds have, by its markers."""
    if not any(seeds):
        return "no seed splits it"
    best = (0, 0, "", ())
    for i, name in ((i, name) for i, parts in enumerate(seeds) for name in parts):
        hits = sum(best_match(seeds[i][name], seeds[j])[0] > MATCH for j in range(len(seeds)) if j != i)
        best = max(best, (hits, len(seeds[i][name]), name, markers[i].get(name, ())))
    return f"{best[0] + 1} of {len(seeds)} seeds, {best[1]} cells: {' '.join(best[3][:8])}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--models", nargs="+", default=["scvae", "dgd"], choices=["scvae", "dgd"])
    args = parser.parse_args()
    sc.settings.verbosity = 0
    adata = load()
    rows = {kind: np.flatnonzero(adata.obs["cell_type"] == kind) for kind in TYPES}
    print("| type | cells | parts by | seeds that split | parts | matched | in 80 % | markers shared |\n|" + "---|" * 8)
    for model in args.models:
        found: dict[tuple[str, str], list[tuple[Parts, Markers]]] = {}
        for seed, kind in itertools.product(range(args.seeds), TYPES):
            if kind == TYPES[0]:
                getattr(sv.tl, model)(adata, normalized=False, progress=False, random_state=seed)
                sc.pp.neighbors(adata, use_rep=f"X_{model}", random_state=seed)
                sc.tl.leiden(adata, flavor="igraph", n_iterations=2, resolution=1.5, random_state=seed)
            clusters = {model: adata.obs[f"{model}_component"], "Leiden on it": adata.obs["leiden"]}
            for name, column in clusters.items():
                parts = parts_of(column.astype(str).to_numpy(), rows[kind])
                found.setdefault((name, kind), []).append((parts, markers_of(adata, parts, model)))
            drawn = shuffled(found[model, kind][-1][0], rows[kind], np.random.default_rng(seed))
            found.setdefault(("at random", kind), []).append((drawn, {}))
        for kind, name in itertools.product(TYPES, (model, "Leiden on it", "at random")):
            parts, markers = map(list, zip(*found[name, kind], strict=True))
            print(row(name, kind, len(rows[kind]), recurrence(parts, markers)), flush=True)
        for kind in TYPES:
            print(f"\n{model}, {kind}, found most often: {often(*map(list, zip(*found[model, kind], strict=True)))}")


if __name__ == "__main__":
    main()
