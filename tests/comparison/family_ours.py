"""Our systems, and PCA, on one data set of the family's table, in a process of its own.

python tests/comparison/family_ours.py scvi folder seed     # reads train, test and half, writes answer.npz
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import scanpy as sc
import torch
from family_data import forget_peak, peak

import scanpy_scvi as sv
from scanpy_scvi.posterior import held_out_bound, latent_moments
from scanpy_scvi.store import load

N_DRAWS = 100
N_PCS = 30

SYSTEMS: dict[str, tuple[str, dict]] = {
    "scvi": ("scvi", {}),
    "ldvae": ("ldvae", {}),
    "scvae": ("scvae", {}),
    "dgd": ("dgd", {}),
    "dca": ("dca", {}),
    "autoencoder": ("autoencoder", {}),
    "vae": ("autoencoder", {"variational": True}),
    "saucie": ("saucie", {}),
    "scvis": ("scvis", {}),
    "autoimpute": ("autoimpute", {}),
    "scscope": ("scscope", {}),
}
"""Name in the table: function of `sv.tl` and its options."""
WITHOUT_BOUND = ("dca", "autoencoder", "vae", "saucie", "scvis", "autoimpute", "scscope")
"""Points without a density, or densities of something else than counts."""


def log_normalised(adata: ad.AnnData) -> np.ndarray:
    """log1p of counts per 10,000, dense."""
    x = adata.X.toarray().astype(np.float64)
    return np.log1p(1e4 * x / x.sum(1, keepdims=True))


def pca(train: ad.AnnData, test: ad.AnnData, half: ad.AnnData, seed: int) -> dict:
    """Principal components of the training cells; a reconstruction is a prediction."""
    before, start = forget_peak(), time.process_time()
    y = log_normalised(train)
    mean = y.mean(0)
    loadings = np.linalg.svd(y - mean, full_matrices=False)[2][:N_PCS]
    latent = (y - mean) @ loadings.T
    seconds, memory = time.process_time() - start, peak() - before
    shown = (log_normalised(half) - mean) @ loadings.T @ loadings + mean
    return {
        "train": latent,
        "test": (log_normalised(test) - mean) @ loadings.T,
        "shares": np.expm1(np.maximum(shown, 0)),
        "seconds": seconds,
        "memory": memory,
    }


def ours(system: str, train: ad.AnnData, test: ad.AnnData, half: ad.AnnData, seed: int) -> dict:
    """A fit of one of our functions."""
    function, options = SYSTEMS[system]
    batch_key = "batch" if "batch" in train.obs else None
    before, start = forget_peak(), time.process_time()
    fit = getattr(sv.tl, function)
    fit(train, batch_key, key_added="fit", random_state=seed, normalized=False, progress=False, **options)
    seconds, memory = time.process_time() - start, peak() - before
    for other in (test, half):
        other.uns["fit"] = train.uns["fit"]
    device, fitted = torch.device("cpu"), load(test, "fit")
    table = fitted.read(test)
    answer = {
        "train": train.obsm["X_fit"],
        "test": latent_moments(fitted.model, table, device=device).mean,
        "shares": sv.tl.normalized_expression(
            half, key="fit", library_size=1, transform_batch="observed", inplace=False
        ).to_numpy(),
        "seconds": seconds,
        "memory": memory,
    }
    if system not in WITHOUT_BOUND:
        bound = held_out_bound(fitted.model, table, n_samples=N_DRAWS, random_state=seed, device=device)
        answer["bound"] = -float(bound.log_likelihood.mean())
    return answer


def learned_map(train: ad.AnnData, test: ad.AnnData, half: ad.AnnData, seed: int) -> dict:
    """UMAP of scVI's space, and held-out cells placed on it by a network."""
    batch_key = "batch" if "batch" in train.obs else None
    before, start = forget_peak(), time.process_time()
    sv.tl.scvi(train, batch_key, random_state=seed, normalized=False, progress=False)
    sc.pp.neighbors(train, use_rep="X_scvi", random_state=seed)
    sc.tl.umap(train, random_state=seed)
    sv.tl.learn_embedding(train, random_state=seed)
    seconds, memory = time.process_time() - start, peak() - before
    test.uns["scvi"] = train.uns["scvi"]
    fitted = load(test, "scvi")
    test.obsm["X_scvi"] = latent_moments(fitted.model, fitted.read(test), device=torch.device("cpu")).mean
    sv.tl.place_cells(test, train)
    return {"train": train.obsm["X_umap"], "test": test.obsm["X_umap"], "seconds": seconds, "memory": memory}


def main(system: str, folder: Path, seed: int) -> None:
    """Fit and answer."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    cells = [ad.read_h5ad(folder / f"{name}.h5ad") for name in ("train", "test", "half")]
    if system in ("pca", "learn_embedding"):
        answer = {"pca": pca, "learn_embedding": learned_map}[system](*cells, seed)
    else:
        answer = ours(system, *cells, seed)
    np.savez(folder / "answer.npz", **answer)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
