"""Small simulated screens of perturbations."""

from __future__ import annotations

import numpy as np

import scanpy_scvi as sv

QUICK = {"n_latent": 4, "n_hidden": 16, "max_epochs": 12, "progress": False}
"""Options of a fit that takes half a second."""


def screen(**options):
    """About 700 cells of ten perturbations and a control, in two batches."""
    few = {"n_perturbations": 10, "n_latent": 4, "n_genes": 60, "cells_per_perturbation": 50, "random_state": 1}
    adata = sv.datasets.simulate_perturbations(**few | options)
    adata.obs["guide"] = [f"guide_{i % 5}" for i in range(adata.n_obs)]
    return adata


def label_shifts(adata, key="svae", column="perturbation"):
    """Shift of each cell by the table of effects, `"A+B"` taken apart."""
    effects = adata.uns[key]["effects"]
    zero = np.zeros(effects.shape[1], np.float32)
    by_name = {name: row.to_numpy() for name, row in effects.iterrows()}
    return np.stack(
        [sum((by_name.get(part, zero) for part in str(label).split("+")), zero) for label in adata.obs[column]]
    )


def wide(adata, column, key="svae"):
    """A column of the tidy table as perturbations x latent dimensions."""
    found = adata.uns[key]
    n, p = found["effects"].shape
    return found["targets"][column].to_numpy().reshape(n, p)
