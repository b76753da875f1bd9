"""The systems of `perturbations_table.py`: what each says of the latent states and targets of a screen."""

from __future__ import annotations

import inspect
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from perturbations_data import KEY, scored_cells, simulated

import scanpy_scvi as sv
from scanpy_scvi.posterior import held_out_bound
from scanpy_scvi.store import load
from scanpy_scvi.tl._sparse_shifts import SECOND_SHARE
from scanpy_scvi.training.config import default_max_epochs

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd
    from perturbations_data import Screen

FIT = "svae"
N_DRAWS = 100
PAPER = {"gates": "gumbel", "init": "cold"}


class Fit(NamedTuple):
    """One call of `tl.svae`."""

    options: dict[str, Any]
    gated: bool
    """Whether the fit itself says which targets there are."""
    priced: bool = False
    """Whether a gate has the paper's price, the number of perturbations less one."""


FITS = {
    "default": Fit({}, gated=True),
    "exact, cold": Fit({"init": "cold"}, gated=True, priced=True),
    "Gumbel, warm": Fit({"gates": "gumbel"}, gated=True, priced=True),
    "Gumbel, cold": Fit(PAPER, gated=True, priced=True),
    "sVAE": Fit({"method": "svae", **PAPER}, gated=True),
    "iVAE": Fit({"method": "ivae", "init": "cold"}, gated=False),
    "beta-VAE": Fit({"method": "beta-vae", "init": "cold"}, gated=False),
    "VAE": Fit({"method": "vae", "init": "cold"}, gated=False),
}
"""Calls of `tl.svae` by name."""
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
    if found.priced:
        options["gate_price"] = screen.n_simulated - 1
    options["max_epochs"] = epochs
    if options.get("init") == "cold":  # as many epochs as those of the two stages
        options["max_epochs"] = total_epochs(screen.train.n_obs, epochs)
    options |= {"control": screen.control, "batch_key": screen.batch_key, "random_state": seed, "device": "cpu"}
    sv.tl.svae(screen.train, KEY, key_added=FIT, **options)
    return time.process_time() - start


def compile_kernels() -> None:
    """A fit of each kind to few cells, so that no fit that is timed waits for the compiler."""
    adata = simulated({"protocol": "reference"}, 0, {"n_perturbations": 5, "cells_per_perturbation": 20})
    for init in ("rotate", "cold"):
        sv.tl.svae(adata, KEY, init=init, max_epochs=1, normalized=False, progress=False, device="cpu")


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


def bound_of_new(screen: Screen, seed: int) -> float:
    """Mean log p(x) of cells of perturbations that were not fitted, nats; other cells of these tell their shifts."""
    scored = scored_cells(screen.held_out)
    rest, cells = screen.held_out[~scored].copy(), screen.held_out[scored].copy()
    sv.tl.svae_transfer(rest, screen.train, key=FIT)
    cells.uns[FIT] = rest.uns[FIT]
    fitted = load(cells, FIT)
    table, cpu = fitted.read(cells), torch.device("cpu")
    found = held_out_bound(fitted.model, table, n_samples=N_DRAWS, random_state=seed, device=cpu)
    return float(found.log_likelihood.mean())
