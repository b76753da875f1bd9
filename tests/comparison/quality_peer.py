"""scvi-tools on one data set and seed: fit, then the scores of the quality table."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import scvi
import torch

if TYPE_CHECKING:
    import anndata as ad
    import numpy as np
    from quality_data import Task

N_DRAWS = 100

CONFIGURATIONS: dict[str, tuple[dict, dict]] = {
    "peer-default": ({}, {}),
    "peer-default-nb": ({"gene_likelihood": "nb"}, {}),
    "peer-pasted": ({"n_layers": 2, "n_latent": 30, "gene_likelihood": "nb"}, {}),
    "peer-our-rate": (
        {"gene_likelihood": "nb"},
        {"early_stopping": True, "plan_kwargs": {"lr": 1e-2, "n_epochs_kl_warmup": 1}},
    ),
}


@torch.no_grad()
def held_out_bound(model: scvi.model.SCVI, adata: ad.AnnData, seed: int) -> tuple[float, float]:
    """-ELBO and importance-weighted -log p(x), nats per cell, mean over the cells of `adata`."""
    torch.manual_seed(seed)
    model.module.eval()
    adata = model._validate_anndata(adata)
    logs, elbos = [], []
    for tensors in model._make_data_loader(adata=adata, batch_size=512):
        weights = []
        for _ in range(N_DRAWS):
            inference, generative = model.module(tensors, compute_loss=False)
            z, qz = inference["z"], inference["qz"]
            log_px = generative["px"].log_prob(tensors["X"]).sum(-1)
            log_ratio = (torch.distributions.Normal(0, 1).log_prob(z) - qz.log_prob(z)).sum(-1)
            weights.append(log_px + log_ratio)
        weights = torch.stack(weights).double()
        elbos.append(weights.mean(0))
        logs.append(torch.logsumexp(weights, 0) - math.log(N_DRAWS))
    return -torch.cat(elbos).mean().item(), -torch.cat(logs).mean().item()


def run(task: Task, adata: ad.AnnData, test: np.ndarray, configuration: str, seed: int) -> tuple[dict, np.ndarray]:
    """Fit one configuration; return its scores and the latent of all cells."""
    model_options, train_options = CONFIGURATIONS[configuration]
    scvi.settings.seed = seed
    train = adata[~test].copy()
    start, wall = time.process_time(), time.perf_counter()
    scvi.model.SCVI.setup_anndata(train, batch_key=task.batch_key)
    model = scvi.model.SCVI(train, **model_options)
    model.train(accelerator="cpu", enable_progress_bar=False, **train_options)
    model.get_latent_representation()
    seconds, wall = time.process_time() - start, time.perf_counter() - wall
    bound, weighted = held_out_bound(model, adata[test].copy(), seed)
    scores = {
        "bound": bound,
        "weighted": weighted,
        "cpu_seconds": seconds,
        "wall_seconds": wall,
        "epochs": len(model.history["train_loss_epoch" if "train_loss_epoch" in model.history else "elbo_train"]),
    }
    return scores, model.get_latent_representation(adata)
