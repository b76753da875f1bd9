"""scanpy_scvi on one data set and seed: fit, then the scores of the quality table."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

import scanpy_scvi as sv
from scanpy_scvi.posterior import held_out_bound, latent_moments
from scanpy_scvi.store import load

if TYPE_CHECKING:
    import anndata as ad
    import numpy as np
    from quality_data import Task

N_DRAWS = 100

CONFIGURATIONS: dict[str, dict] = {
    "ours": {},
    "ours-zinb": {"likelihood": "zinb"},
    "ours-preset": {"preset": "scvi-tools"},
}


def run(task: Task, adata: ad.AnnData, test: np.ndarray, configuration: str, seed: int) -> tuple[dict, np.ndarray]:
    """Fit one configuration; return its scores and the latent of all cells."""
    train = adata[~test].copy()
    start, wall = time.process_time(), time.perf_counter()
    sv.tl.scvi(
        train, task.batch_key, random_state=seed, normalized=False, progress=False, **CONFIGURATIONS[configuration]
    )
    seconds, wall = time.process_time() - start, time.perf_counter() - wall
    fitted, device = load(train, "scvi"), torch.device("cpu")
    held_out = fitted.read(adata[test].copy())
    bound = held_out_bound(fitted.model, held_out, n_samples=N_DRAWS, random_state=seed, device=device)
    scores = {
        "bound": -float(bound.elbo.mean()),
        "weighted": -float(bound.log_likelihood.mean()),
        "cpu_seconds": seconds,
        "wall_seconds": wall,
        "epochs": len(train.uns["scvi"]["history"]["epoch"]),
        "verdict": str(train.uns["scvi"]["convergence"]["verdict"]),
    }
    return scores, latent_moments(fitted.model, fitted.read(adata), device=device).mean
