"""The original scGen on one task of `response_prediction.py`, by its tutorial, in a process of its own.

    python tests/comparison/response_peer.py SCGEN folder held_out seed stop    # reads train.h5ad, writes answer.npz

With `stop` 1 its early stopping is on, as in the tutorial; with 0 it runs for all of the 100 epochs. SCGEN is a copy of
the repository theislab/scgen, made with d79e1f0; Python is that of an environment with scvi-tools (made with 1.4.2).
`train.h5ad` holds log-normalised counts. What the package wants only for its plots and its version is passed by, and
latent means are read here, since scvi-tools has other names for them now.
"""

from __future__ import annotations

import sys
import time
import types
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import scvi
import torch


def scgen_class(repository: Path) -> type:
    """Its model, without its `__init__`, which asks for an installed version, and without the labels of its plots."""
    package, labels = types.ModuleType("scgen"), types.ModuleType("adjustText")
    package.__path__ = [str(repository / "scgen")]
    labels.adjust_text = None
    sys.modules |= {"scgen": package, "adjustText": labels}
    from scgen._scgen import SCGEN

    SCGEN.get_latent_representation = latent_means
    return SCGEN


@torch.no_grad()
def latent_means(model, adata: ad.AnnData | None = None) -> np.ndarray:
    """Posterior means."""
    model.module.eval()
    batches = model._make_data_loader(adata=model._validate_anndata(adata))
    return torch.cat([model.module.inference(tensors["X"])["qz_m"] for tensors in batches]).numpy()


def main(repository: Path, folder: Path, held_out: str, seed: int, *, stop: bool) -> None:
    """Fit and predict."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    scvi.settings.seed = seed  # of NumPy too, by which it balances types
    kind = scgen_class(repository)
    train = ad.read_h5ad(folder / "train.h5ad")
    start = time.process_time()
    kind.setup_anndata(train, batch_key="condition", labels_key="cell_type")
    model = kind(train)
    rule = {"early_stopping": stop, "early_stopping_patience": 25}
    model.train(max_epochs=100, batch_size=32, accelerator="cpu", enable_progress_bar=False, **rule)
    predicted, _ = model.predict(ctrl_key="ctrl", stim_key="stim", celltype_to_predict=held_out)
    seconds = time.process_time() - start
    epochs = model.trainer.current_epoch
    np.savez(folder / "answer.npz", values=predicted.X, seconds=seconds, epochs=epochs)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), stop=sys.argv[5] == "1")
