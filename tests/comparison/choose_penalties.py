"""How the weights of penalties were chosen: one changed at a time, on data that no other table reports.

    SCANPY_SCVI_DATA=... python tests/comparison/choose_penalties.py

600 most variable genes. Prints a row for each fit: 15 neighbours' vote for the label, share of neighbours from the own
batch, share of the 30 neighbours in 50 principal components that are neighbours in z too, clusters of codes (number,
share of cells in one, adjusted Rand index of these cells with the labels), epochs and CPU seconds.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import scanpy as sc
from sklearn.metrics import adjusted_rand_score

import scanpy_scvi as sv
from scanpy_scvi.metrics import batch_mixing, label_score
from scanpy_scvi.metrics.neighbours import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

N_GENES, N_NEAR = 600, 30
QUIET = {"progress": False, "normalized": False}


def load(name: str) -> ad.AnnData:
    adata = ad.read_h5ad(Path(os.environ["SCANPY_SCVI_DATA"]) / f"{name}.h5ad")
    logs = adata.copy()
    sc.pp.normalize_total(logs)
    sc.pp.log1p(logs)
    sc.pp.highly_variable_genes(logs, n_top_genes=N_GENES)
    chosen = logs.var["highly_variable"].to_numpy()
    adata, logs = adata[:, chosen].copy(), logs[:, chosen].copy()
    sc.pp.pca(logs, 50)
    adata.obsm["pcs"] = logs.obsm["X_pca"]
    return adata


def settings() -> Iterator[tuple[str, str, dict]]:
    """Data, model and options of each fit."""
    for name in ("mouse_bladder", "paul15", "worm_embryo"):
        for weight in (0.1, 0.3, 1.0):
            yield name, "saucie", {"entropy_weight": weight}
    for weight in (0.0, 10.0, 100.0):
        yield "worm_embryo", "saucie", {"mmd_weight": weight}
    for weight in (0.0, 10.0, 100.0):
        yield "worm_embryo", "scvi", {"penalties": (("mmd", {"weight": weight}),) if weight else ()}
    for name in ("mouse_bladder", "worm_embryo", "paul15"):
        for weight in (0.0, 30.0, 100.0):
            yield name, "scvis", {"tsne_weight": weight}


def row(adata: ad.AnnData, model: str, options: dict) -> str:
    batch = "batch" if "batch" in adata.obs else None
    start = time.process_time()
    getattr(sv.tl, model)(adata, batch_key=None if model == "scvis" else batch, **options, **QUIET)
    seconds = time.process_time() - start
    z, labels = adata.obsm[f"X_{model}"], adata.obs["cell_type"].to_numpy().astype(str)
    mixing = f"{batch_mixing(z, adata.obs['batch'].to_numpy()):.2f}" if batch else "–"
    near, found = (nearest(points, n_neighbors=N_NEAR).indices for points in (adata.obsm["pcs"], z))
    kept = np.mean([len(set(a) & set(b)) / N_NEAR for a, b in zip(near, found, strict=True)])
    clusters = "–"
    if model == "saucie":
        of_cells = adata.obs["saucie"].to_numpy().astype(str)
        inside = of_cells != "unassigned"
        index = adjusted_rand_score(labels[inside], of_cells[inside])
        clusters = f"{len(set(of_cells[inside]))}, {inside.mean():.2f}, {index:.2f}"
    epochs = len(adata.uns[model]["history"]["epoch"])
    return f"{label_score(z, labels):.3f} | {mixing} | {kept:.2f} | {clusters} | {epochs} | {seconds:.0f}"


def main() -> None:
    print("| data | model | options | label | same batch | neighbours kept | clusters, in one, ARI | epochs | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|")
    data: dict[str, ad.AnnData] = {}
    for name, model, options in settings():
        if name not in data:
            data[name] = load(name)
        shown = ", ".join(f"{k}={v}" for k, v in options.items()) or "default"
        print(f"| {name} | `{model}` | {shown} | {row(data[name], model, options)} |", flush=True)


if __name__ == "__main__":
    sc.settings.verbosity = 0
    main()
