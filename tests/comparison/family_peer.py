"""scvi-tools on one data set of the family's table, in a process of its own.

python tests/comparison/family_peer.py SCVI folder seed     # reads train, test and half, writes answer.npz
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import scvi
import torch
from family_data import forget_peak, peak

N_DRAWS = 100


@torch.no_grad()
def held_out_bound(model: scvi.model.SCVI, adata: ad.AnnData, seed: int) -> float:
    """Importance-weighted -log p(x), nats per cell; of a latent library, l is drawn too."""
    torch.manual_seed(seed)
    model.module.eval()
    logs = []
    for tensors in model._make_data_loader(adata=model._validate_anndata(adata), batch_size=512):
        weights = []
        for _ in range(N_DRAWS):
            inference, generative = model.module(tensors, compute_loss=False)
            z, qz = inference["z"], inference["qz"]
            log_weight = generative["px"].log_prob(tensors["X"]).sum(-1)
            log_weight = log_weight + (generative["pz"].log_prob(z) - qz.log_prob(z)).sum(-1)
            if inference["ql"] is not None:
                library = inference["library"]
                ratio = generative["pl"].log_prob(library) - inference["ql"].log_prob(library)
                log_weight = log_weight + ratio.sum(-1)
            weights.append(log_weight)
        logs.append(torch.logsumexp(torch.stack(weights).double(), 0) - math.log(N_DRAWS))
    return -torch.cat(logs).mean().item()


def main(system: str, folder: Path, seed: int) -> None:
    """Fit and answer."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    scvi.settings.seed = seed
    train, test, half = (ad.read_h5ad(folder / f"{name}.h5ad") for name in ("train", "test", "half"))
    kind = getattr(scvi.model, system)
    batch_key = "batch" if "batch" in train.obs else None
    before, start = forget_peak(), time.process_time()
    kind.setup_anndata(train, batch_key=batch_key)
    model = kind(train, n_latent=10)
    model.train(accelerator="cpu", enable_progress_bar=False)
    latent = model.get_latent_representation()
    seconds, memory = time.process_time() - start, peak() - before
    np.savez(
        folder / "answer.npz",
        train=latent,
        test=model.get_latent_representation(test),
        shares=model.get_normalized_expression(half, library_size=1, return_numpy=True),
        bound=held_out_bound(model, test, seed),
        seconds=seconds,
        memory=memory,
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
