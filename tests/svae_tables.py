"""What `tl.svae` stores, made up rather than fitted."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

RULE = {"min_shift": 0.5, "min_share": 0.3, "min_errors": 3.0}
END = {"verdict": "converged", "message": "converged", "best_epoch": 1, "best_elbo": -1.0}


def svae_entry(
    names: list[str], *, n_latent: int = 6, n_null: int = 40, control: bool = True, seed: int = 0
) -> dict[str, Any]:
    """Entry of `uns` of a fit in which perturbations come in families that share their targets; every sixth is silent.

    Parameters
    ----------
    names
        Perturbations.
    n_latent
        Latent dimensions.
    n_null
        Pseudo-perturbations.
    control
        Whether there was a control.
    seed
        Seed of all numbers.
    """
    rng = np.random.default_rng(seed)
    n = len(names)
    family = np.arange(n) % 6
    n_cells = np.exp(rng.normal(4.5, 0.8, n)).astype(int) + 5
    true = np.where(rng.random((6, n_latent)) < 0.35, rng.choice([-1, 1], (6, n_latent)) * rng.uniform(1, 4), 0)
    true[5] = 0
    true[0, 0], true[1, -1] = 2.5, -3.0
    error = np.repeat(1 / np.sqrt(n_cells)[:, None], n_latent, 1)
    shift = true[family] * rng.uniform(0.6, 1.2, (n, 1)) + error * rng.normal(size=(n, n_latent))
    least = np.maximum(RULE["min_shift"], RULE["min_share"] * np.abs(shift).max(1, keepdims=True))
    open_ = np.abs(shift) > np.maximum(least, RULE["min_errors"] * error)
    probability = np.clip(np.where(true[family] != 0, 0.97, 0.04) + rng.normal(0, 0.03, shift.shape), 0.001, 0.999)
    open_ &= probability > 0.5
    effects = np.where(open_, shift, 0).astype(np.float32)
    latents = [str(j) for j in range(n_latent)]
    targets = pd.DataFrame(
        {
            "perturbation": pd.Categorical(np.repeat(names, n_latent)),
            "latent": pd.Categorical(np.tile(latents, n)),
            "shift": shift.ravel().astype(np.float32),
            "standard_error": error.ravel().astype(np.float32),
            "probability": probability.ravel().astype(np.float32),
            "evidence": (n_cells[:, None] * shift**2 / 2).ravel().astype(np.float32),
            "q_value": np.exp(-((shift / error) ** 2) / 2).ravel().astype(np.float32),
            "is_target": open_.ravel(),
            "n_cells": np.repeat(n_cells, n_latent),
        },
        index=pd.RangeIndex(n * n_latent).astype(str),
    )
    perturbations = pd.DataFrame(
        {
            "n_cells": n_cells,
            "n_targets": open_.sum(1),
            "effect": np.linalg.norm(effects, axis=1),
            "response": rng.gamma(2, 1, n).astype(np.float32),
            "gain": rng.gamma(2, 1, n).astype(np.float32),
        },
        index=names,
    )
    entry = {
        "schema": 1,
        "history": {"epoch": np.arange(1, 3)},
        "convergence": dict(END),
        "params": {"perturbation_key": "perturbation", "control": np.array(["control"], object) if control else ""},
        "perturbations": perturbations,
        "effects": pd.DataFrame(effects, index=names, columns=latents),
        "targets": targets,
        "rule": dict(RULE),
        "gate_density": 0.25 + 0.75 * np.exp(-np.arange(30) / 6),
    }
    if control:
        cells = rng.integers(20, 300, n_null)
        errors = np.repeat(1 / np.sqrt(cells)[:, None], n_latent, 1)
        entry["null_shifts"] = (errors * rng.normal(size=errors.shape)).astype(np.float32)
        entry["null_errors"], entry["null_cells"] = errors.astype(np.float32), cells
    return entry


def gene_names(n: int) -> list[str]:
    """Names of targets, as a screen would have them."""
    stems = ("KLF", "IFNGR", "STAT", "JAK", "MED", "SMAD", "POLR2", "GATA", "RPS", "CDK", "BRD", "SMARCA")
    return [f"{stems[i % len(stems)]}{i // len(stems) + 1}" for i in range(n)]


def svae_adata(n: int = 12, **options: Any) -> ad.AnnData:
    """Cells of no interest with the entry of a fit, and its programs."""
    entry = svae_entry(gene_names(n), **options)
    n_latent = entry["effects"].shape[1]
    rng = np.random.default_rng(1)
    adata = ad.AnnData(np.ones((4, 60), np.float32))
    adata.var_names = [f"GENE{i}" for i in range(60)]
    programs = rng.normal(0, 0.2, (60, n_latent)) + (rng.random((60, n_latent)) < 0.1) * rng.normal(0, 1.5, (60, 1))
    programs[-3:] = np.nan  # genes outside of the model
    adata.varm["svae_programs"] = programs.astype(np.float32)
    adata.var["svae_basal_expression"] = np.where(np.isfinite(programs[:, 0]), 100 / (1 + np.arange(60.0)), np.nan)
    adata.uns["svae"] = entry
    return adata
