"""The systems of `perturbations_table.py`: what each says of the latent states and targets of a screen."""

from __future__ import annotations

import inspect
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from perturbations_data import KEY, scored_cells

import scanpy_scvi as sv
from scanpy_scvi.metrics import iwelbo
from scanpy_scvi.posterior import latent_moments, log_density
from scanpy_scvi.store import load
from scanpy_scvi.tl._sparse_shifts import SECOND_SHARE
from scanpy_scvi.training.config import default_max_epochs

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd
    from perturbations_data import Screen

FIT = "svae"
N_DRAWS = 100
OPEN_GATE = 4.2
"""-log(1 - q) of an open gate, q = 0.985: what sVAE+ pays for it in units of its price."""
COLD = {"gates": "exact", "init": "cold"}
PAPER = {"gates": "gumbel", "init": "cold"}


class Fit(NamedTuple):
    """One call of `tl.svae`."""

    options: dict[str, Any]
    gated: bool
    """Whether the fit itself says which targets there are."""
    price: float | None = None
    """Price of a gate, in units of the number of perturbations less one."""


FITS = {
    "default": Fit({}, gated=True),
    "exact, cold": Fit(COLD, gated=True),
    "Gumbel, warm": Fit({"gates": "gumbel"}, gated=True, price=1),
    "Gumbel, cold": Fit(PAPER, gated=True, price=1),
    "sVAE": Fit({"method": "svae", **PAPER}, gated=True, price=OPEN_GATE),
    "iVAE": Fit({"method": "ivae", "init": "cold"}, gated=False),
    "beta-VAE": Fit({"method": "beta-vae", "init": "cold", "kl_weight": 4.0}, gated=False),
    "VAE": Fit({"method": "vae", "init": "cold"}, gated=False),
}
"""Fits by name; all but the default form of a gate are from a cold start, or the paper's Gumbel draws."""
ROTATED = {"PCA + ICA": "ica", "PCA + rotation": "sparse", "VAE + rotation": "sparse", "VAE + ICA": "ica"}
"""Names of what `tl.rotate` makes of principal components, and of the VAE: its method."""
SYSTEMS = ["PCA + ICA", "PCA + rotation", "VAE", "VAE + rotation", "VAE + ICA", "beta-VAE", "iVAE", "sVAE"]
SYSTEMS += ["Gumbel, cold", "exact, cold", "Gumbel, warm", "default"]
"""Rows of the table, in their order."""


class Answer(NamedTuple):
    """What a system says; matrices of gates are perturbations x latents, perturbations in the order of the screen."""

    latent: np.ndarray
    """Training cells x latents."""
    shifts: np.ndarray
    targets: np.ndarray
    """By its own rule, bool."""
    gated: bool
    seconds: float
    bound: float | None = None
    """Mean importance-weighted log p(x) of cells of held-out perturbations, nats."""


def source_of(system: str) -> str:
    """What has to be fitted for a system."""
    return system.partition(" + ")[0]


def fit(source: str, screen: Screen, seed: int, epochs: int | None) -> float:
    """Fit in place; returns CPU seconds."""
    start = time.process_time()
    if source == "PCA":
        screen.train.obsm["X_PCA"] = principal_components(screen.train, screen.n_latent)
        return time.process_time() - start
    found = FITS[source]
    options = {"n_latent": screen.n_latent, "normalized": False, "progress": False, **found.options}
    if found.price is not None:
        options["gate_price"] = found.price * (screen.n_simulated - 1)
    options["max_epochs"] = epochs
    if options.get("init") == "cold":  # as many epochs as those of the two stages
        options["max_epochs"] = total_epochs(screen.train.n_obs, epochs)
    options |= {"control": screen.control, "batch_key": screen.batch_key, "random_state": seed, "device": "cpu"}
    sv.tl.svae(screen.train, KEY, key_added=FIT, **options)
    return time.process_time() - start


def total_epochs(n_cells: int, epochs: int | None) -> int:
    """Epochs of both stages of the default fit."""
    batch_size = inspect.signature(sv.tl.svae).parameters["batch_size"].default
    first = default_max_epochs(n_cells, batch_size) if epochs is None else epochs
    return first + max(1, round(SECOND_SHARE * first))


def answer_of(system: str, screen: Screen, seed: int, seconds: float) -> Answer:
    """What a system says, once its source was fitted."""
    source = source_of(system)
    if system in ROTATED:
        return rotated(source, screen, ROTATED[system], seed, seconds)
    latent = np.asarray(screen.train.obsm[f"X_{FIT}"])
    table = screen.train.uns[FIT]["targets"]
    shifts, targets = (by_latent(table, column, screen.names) for column in ("shift", "is_target"))
    return Answer(latent, shifts, targets.astype(bool), FITS[system].gated, seconds)


def rotated(source: str, screen: Screen, method: str, seed: int, seconds: float) -> Answer:
    """A representation, turned."""
    key = "X_PCA" if source == "PCA" else f"X_{FIT}"
    start = time.process_time()
    sv.tl.rotate(
        screen.train, KEY, use_rep=key, control=screen.control, method=method, key_added="turned", random_state=seed
    )
    seconds += time.process_time() - start
    found = screen.train.uns["turned"]
    rows = [list(found["perturbations"]).index(name) for name in screen.names]
    latent = np.asarray(screen.train.obsm["X_turned"])
    return Answer(latent, found["shifts"][rows], found["targets"][rows], gated=False, seconds=seconds)


def by_latent(table: pd.DataFrame, column: str, names: list[str]) -> np.ndarray:
    """A column of the table of targets, perturbations x latents."""
    wide = table.assign(latent=table["latent"].astype(int)).pivot(index="perturbation", columns="latent", values=column)
    return wide.sort_index(axis=1).loc[names].to_numpy()


def principal_components(adata: ad.AnnData, n: int) -> np.ndarray:
    """Scores of log1p of counts per mean total."""
    x = adata.X.toarray().astype(np.float64)
    total = x.sum(1, keepdims=True)
    y = np.log1p(x / total * total.mean())
    y -= y.mean(0)
    left, size, _ = np.linalg.svd(y, full_matrices=False)
    return left[:, :n] * size[:n]


def held_out_bound(system: str, screen: Screen, seed: int) -> float:
    """IWELBO of cells of perturbations that were not fitted, whose shifts other cells tell."""
    held_out, scored = screen.held_out, scored_cells(screen.held_out)
    rest = held_out[~scored].copy()
    names = sorted(held_out.obs[KEY].astype(str).unique())
    shifts = np.zeros((len(names), screen.n_latent))
    if system not in ("VAE", "beta-VAE"):
        shifts = new_shifts(rest, screen.train, names, gated=FITS[system].gated)
    cells = held_out[scored].copy()
    label = cells.obs[KEY].astype(str)
    weights = log_weights(cells, screen.train, shifts[[names.index(name) for name in label]], seed)
    return iwelbo(weights, label.to_numpy(), min_cells=0).mean


def new_shifts(cells: ad.AnnData, train: ad.AnnData, names: list[str], *, gated: bool) -> np.ndarray:
    """Shifts of perturbations that the fit has not seen, of open gates only where it has gates."""
    sv.tl.svae_transfer(cells, train, perturbation_key=KEY, key=FIT)
    table = cells.uns[FIT]["targets"]
    shifts = by_latent(table, "shift", names)
    return np.where(by_latent(table, "is_target", names).astype(bool), shifts, 0) if gated else shifts


def encoded(cells: ad.AnnData, train: ad.AnnData) -> tuple[np.ndarray, np.ndarray, tuple]:
    """Posterior means and variances, and the model with what it reads; neither encoder nor decoder sees a label."""
    relabelled = cells.copy()
    relabelled.obs[KEY] = str(train.obs[KEY].iloc[0])
    relabelled.uns[FIT] = train.uns[FIT]
    fitted = load(relabelled, FIT)
    table = fitted.read(relabelled)
    moments = latent_moments(fitted.model, table, device=torch.device("cpu"))
    return moments.mean, moments.spread(), (fitted.model, table)


def log_weights(cells: ad.AnnData, train: ad.AnnData, shifts: np.ndarray, seed: int) -> np.ndarray:
    """log of p(x | z) N(z; shift, I) / q(z | x) at draws of q, draws x cells."""
    mean, var, (model, table) = encoded(cells, train)
    rng, found = np.random.default_rng(seed), []
    for _ in range(N_DRAWS):
        noise = rng.normal(size=mean.shape)
        z = mean + np.sqrt(var) * noise
        ratio = 0.5 * (noise**2 + np.log(var) - (z - shifts) ** 2).sum(1)
        found.append(log_density(model, table, z.astype(np.float32), device=torch.device("cpu")) + ratio)
    return np.stack(found)
