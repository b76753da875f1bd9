"""How well the latents and targets of simulated perturbations were found."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from scanpy_scvi.metrics import latent_r2, mcc, target_auprc, target_f1

if TYPE_CHECKING:
    from perturbations_data import Screen
    from perturbations_systems import Answer

TOP = 2
"""Targets of each perturbation where the largest shifts are taken."""


def scores(screen: Screen, answer: Answer) -> dict[str, float]:
    """Latents, and targets aligned by absolute correlations. `f1` is by a system's own rule."""
    match = mcc(screen.train.obsm["z"], answer.latent)
    own = target_f1(screen.targets, answer.targets, match.assignment)
    line = {
        "mcc": match.mcc,
        "r2": latent_r2(screen.train.obsm["z"], answer.latent),
        "f1": own.f1,
        "precision": own.precision,
        "recall": own.recall,
        "auprc": target_auprc(screen.targets, np.abs(answer.shifts), match.assignment),
        "density": float(answer.targets.mean()),
        "true_density": float(screen.targets.mean()),
        "seconds": answer.seconds,
    }
    if not answer.gated:
        line["f1_top2"] = target_f1(screen.targets, answer.shifts, match.assignment, top_n=TOP).f1
    if answer.bound is not None:
        line["bound"] = answer.bound
    return line


def null_scores(names: list[str], targets: np.ndarray) -> dict[str, float]:
    """What opens for perturbations that do nothing, all together and by their numbers of cells."""
    any_open = targets.any(1)
    line = {"null": len(names), "gates_opened": float(targets.mean()), "any_opened": float(any_open.mean())}
    sizes = np.array([int(name.rpartition("_")[2]) for name in names])
    return line | {f"any_opened_of_{size}": float(any_open[sizes == size].mean()) for size in np.unique(sizes)}


def mean_sd(values: list[float], digits: int) -> str:
    """Mean, and ± the standard deviation of several."""
    if not values:
        return "–"
    mean = f"{np.mean(values):.{digits}f}"
    if len(values) == 1 or math.isnan(float(np.std(values))):
        return mean
    return f"{mean}\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{np.std(values, ddof=1):.{digits}f}"
