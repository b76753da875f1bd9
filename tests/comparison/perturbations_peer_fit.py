"""The sVAE+ paper's own model on one screen, in an environment of its own: scvi-tools 0.18, no scanpy_scvi.

python tests/comparison/perturbations_peer_fit.py CODE folder penalty seed max_epochs   # screen.npz -> answer.npz

CODE is a checkout of https://github.com/Genentech/sVAE. The settings, and the order of calls, are those of its script
`entry_points/demo.py` up to its first scores, with the 80 fitted perturbations of 100: 15 latents, two layers, at most
300 epochs, KL warm-up over 50, early stopping. Unlike there, the script's own simulation is not drawn, nothing is
reported to a server, and the fit is on one CPU thread. The model is given all cells first, so that there are labels for
all perturbations, and trained with those of the fitted ones, as there.
"""

from __future__ import annotations

import importlib
import sys
import time
import types
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch

N_DRAWS = 100
KL_WARMUP = 50


def spike_slab_vae(code: Path) -> type:
    """The class, without the package's `__init__`, which wants to be installed."""
    package = types.ModuleType("svae")
    package.__path__ = [str(code / "svae")]
    sys.modules["svae"] = package
    return importlib.import_module("svae._model").SpikeSlabVAE


def read(folder: Path) -> tuple[ad.AnnData, np.ndarray]:
    """All cells, and which of them are fitted."""
    screen = np.load(folder / "screen.npz")
    adata = ad.AnnData(screen["counts"].astype(np.float32))
    adata.obs["chem"] = pd.Categorical(screen["perturbation"])
    return adata, screen["fitted"]


@torch.no_grad()
def log_weights(model: object, adata: ad.AnnData, scored: np.ndarray) -> np.ndarray:
    """log of p(x | z) N(z; shift, I) / q(z | x), draws x scored cells; shifts are means of the other cells."""
    module = model.module.eval()
    x = torch.from_numpy(np.asarray(adata.X))
    batch = torch.zeros(len(x), 1)
    mean = module.inference(x, batch)["qz"].loc.numpy()
    label = adata.obs["chem"].to_numpy().astype(int)
    shift = {k: mean[(label == k) & ~scored].mean(0) for k in np.unique(label)}
    prior = torch.distributions.Normal(torch.from_numpy(np.stack([shift[k] for k in label[scored]])), 1.0)
    x, batch = x[scored], batch[scored]
    y, found = torch.from_numpy(label[scored])[:, None].float(), []
    for _ in range(N_DRAWS):
        inferred = module.inference(x, batch)
        z = inferred["z"]
        px = module.generative(z, inferred["library"], batch, y=y)["px"]
        ratio = (prior.log_prob(z) - inferred["qz"].log_prob(z)).sum(1)
        found.append((px.log_prob(x).sum(1) + ratio).numpy())
    return np.stack(found)


def main(code: Path, folder: Path, penalty: float, seed: int, max_epochs: int) -> None:
    """Fit and answer."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    kind = spike_slab_vae(code)
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # as there
    adata, fitted = read(folder)
    kind.setup_anndata(adata, labels_key="chem")
    model = kind(adata, n_latent=15, n_layers=2)
    train, others = adata[fitted].copy(), adata[~fitted].copy()
    start = time.process_time()
    model.adata = train
    model.module.use_chem_prior = True
    model.module.sparse_mask_penalty = penalty
    model.train(
        max_epochs=max_epochs,
        use_gpu=False,
        check_val_every_n_epoch=1,
        early_stopping=True,
        plan_kwargs={"n_epochs_kl_warmup": KL_WARMUP},
        logger=False,
        simple_progress_bar=False,
        enable_progress_bar=False,
    )
    seconds = time.process_time() - start
    scored = np.load(folder / "screen.npz")["scored"][~fitted]
    np.savez(
        folder / "answer.npz",
        latent=model.get_latent_representation(train),
        gates=model.module.gumbel_action.get_proba().detach().numpy(),
        shifts=model.module.action_prior_mean.detach().numpy(),
        log_weights=log_weights(model, others, scored),
        seconds=seconds,
        epochs=model.trainer.current_epoch,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
