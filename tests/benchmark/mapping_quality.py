"""Each batch of `worm_embryo` held back in turn and mapped: forward only, with its columns fitted, and the joint fit.

    OMP_NUM_THREADS=1 SCANPY_SCVI_DATA=... python tests/benchmark/mapping_quality.py

2,000 genes. Label: share of the query's cells that a vote of their 15 nearest reference cells gives the right type.
Same batch: share of the query's own cells among the 30 nearest neighbours of a query cell, reference and query
together; ideal: the share of the query among the cells of its type. The data served for choosing how columns start and
which are fitted.
"""

from __future__ import annotations

import numpy as np
import torch
from _common import Clock
from quality_data import TASKS, load

import scanpy_scvi as sv
from scanpy_scvi.metrics.integration import ideal_same_batch
from scanpy_scvi.metrics.neighbours import nearest

FORWARD, LEARNED, JOINT = "forward only", "new columns fitted", "joint fit"


def scores(space: np.ndarray, labels: np.ndarray, is_query: np.ndarray) -> tuple[float, float]:
    """Label accuracy from reference to query, and the share of neighbours from the query."""
    near = nearest(space[~is_query], space[is_query], n_neighbors=15).indices
    names, codes = np.unique(labels[~is_query], return_inverse=True)
    votes = np.stack([(codes[near] == c).sum(1) for c in range(len(names))], axis=1).argmax(1)
    around = nearest(space, n_neighbors=30).indices[is_query]
    return float((names[votes] == labels[is_query]).mean()), float(is_query[around].mean())


def main() -> None:
    """Print a row for each batch, and the means."""
    torch.set_num_threads(1)
    task = TASKS["worm_embryo"]
    adata = load(task)
    labels = np.asarray(adata.obs[task.label_key].astype(str))
    batch = np.asarray(adata.obs[task.batch_key].astype(str))
    adata.obs["batch"] = batch
    joint = adata.copy()
    sv.tl.scvi(joint, "batch", normalized=False, progress=False)
    rows = []
    for held_back in np.unique(batch):
        is_query = batch == held_back
        reference, query = adata[~is_query].copy(), adata[is_query].copy()
        sv.tl.scvi(reference, "batch", normalized=False, progress=False)
        found = {JOINT: scores(joint.obsm["X_scvi"], labels, is_query)}
        for name, update in ((FORWARD, False), (LEARNED, True)):
            clock = Clock()
            sv.tl.map_query(query, reference, update_weights=update, progress=False)
            seconds = clock.cpu
            space = np.empty_like(joint.obsm["X_scvi"])
            space[is_query], space[~is_query] = query.obsm["X_scvi"], reference.obsm["X_scvi"]
            found[name] = scores(space, labels, is_query)
        ideal = float(ideal_same_batch(is_query, labels)[is_query].mean())
        rows.append([*(x for name in (FORWARD, LEARNED, JOINT) for x in found[name]), ideal, seconds])
        cells = " | ".join(f"{x:.3f}" for x in rows[-1])
        print(f"| `{held_back}` | {is_query.sum()} | {cells} |", flush=True)
    print(f"| mean | | {' | '.join(f'{x:.3f}' for x in np.mean(rows, 0))} |")


if __name__ == "__main__":
    main()
