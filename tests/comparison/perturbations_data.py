"""Simulated screens of perturbations with known targets, for `perturbations_table.py` and `perturbations_peer.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import scanpy_scvi as sv

if TYPE_CHECKING:
    import anndata as ad

KEY = "perturbation"
CONTROL = "control"
HELD_OUT = 0.2
"""Share of the perturbations that are held out, the last ones."""
N_SCORED = 50
"""Cells of a held-out perturbation that are scored; the others tell its shift."""
NULL_SIZES = (50, 100, 250)
NULL_SHARE = 0.5
"""Share of the control cells that are renamed."""

DATA: dict[str, dict[str, Any]] = {
    "reference": {"protocol": "reference"},
    "reference, genes": {"protocol": "reference", "softmax_over": "genes"},
}
"""The two data sets of the main table: options of `sv.datasets.simulate_perturbations`."""
NULL: dict[str, dict[str, Any]] = {
    "reference, controls": {"protocol": "reference", "control_fraction": 0.2},
    "corrected": {"protocol": "corrected"},
}
"""Those with controls, some of which are renamed."""
GRID: dict[str, dict[str, Any]] = {
    "corrected": {},
    "20 perturbations": {"n_perturbations": 20},
    "300 perturbations": {"n_perturbations": 300},
    "10 latents": {"n_latent": 10},
    "30 latents": {"n_latent": 30},
    "20 cells each": {"cells_per_perturbation": 20},
    "50 cells each": {"cells_per_perturbation": 50},
    "equal numbers of cells": {"unequal_cells": 0.0},
    "very unequal numbers (log sd 1)": {"unequal_cells": 1.0},
    "shifts of 2": {"shift": 2.0},
    "shifts of 1": {"shift": 1.0},
    "Poisson counts": {"theta": np.inf},
    "theta 2": {"theta": 2.0},
    "depth 1000": {"depth": 1000.0},
    "2000 genes": {"n_genes": 2000},
    "no escaping cells": {"escaping_fraction": 0.0},
    "one batch": {"n_batches": 1},
    "no controls": {"control_fraction": 0.0},
    "independent latents": {"latent_correlation": 0.0},
}
"""One option of the corrected protocol at a time."""


class Screen(NamedTuple):
    """Cells to fit, cells held out, and the truth about the perturbations that are fitted."""

    train: ad.AnnData
    held_out: ad.AnnData | None
    """Cells of perturbations that are not fitted."""
    names: list[str]
    """Perturbations, in the order of the next."""
    targets: np.ndarray
    """Perturbations x latents, bool."""
    control: str | None
    batch_key: str | None
    null: list[str]
    """Perturbations that are control cells under another name."""

    @property
    def n_latent(self) -> int:
        """True latents."""
        return self.targets.shape[1]

    @property
    def n_simulated(self) -> int:
        """Perturbations with those that are held out."""
        held_out = [] if self.held_out is None else self.held_out.obs[KEY].unique()
        return len(self.names) + len(held_out)


def screen_of(adata: ad.AnnData, *, hold_out: bool = False) -> Screen:
    """Divide a simulation; with `hold_out` the last fifth of the perturbations is not fitted."""
    names, targets = list(adata.uns["simulation"]["perturbations"]), adata.uns["simulation"]["targets"]
    n_fitted = len(names) - round(HELD_OUT * len(names)) * hold_out
    away = adata.obs[KEY].isin(names[n_fitted:]).to_numpy()
    control = CONTROL if CONTROL in adata.obs[KEY].cat.categories else None
    batch_key = "batch" if adata.obs["batch"].nunique() > 1 else None
    held_out = adata[away].copy() if hold_out else None
    train = adata[~away].copy()
    train.obs[KEY] = train.obs[KEY].cat.remove_unused_categories()
    return Screen(train, held_out, names[:n_fitted], targets[:n_fitted], control, batch_key, [])


def with_null(adata: ad.AnnData, seed: int) -> Screen:
    """Rename half of the control cells, before anything is fitted: perturbations that do nothing, of three sizes."""
    label = adata.obs[KEY].astype(str).to_numpy(dtype=object)
    free = np.random.default_rng(seed).permutation(np.flatnonzero(label == CONTROL))
    n_rounds = int(NULL_SHARE * len(free)) // sum(NULL_SIZES)
    sizes = NULL_SIZES * n_rounds if n_rounds else (max(int(NULL_SHARE * len(free)) // 2, 1),) * 2
    null, start = [], 0
    for i, size in enumerate(sizes):
        null.append(f"null_{i}_of_{size}")
        label[free[start : start + size]] = null[-1]
        start += size
    renamed = adata.copy()
    renamed.obs[KEY] = label
    renamed.obs[KEY] = renamed.obs[KEY].astype("category")
    return screen_of(renamed)._replace(null=null)


def simulated(options: dict[str, Any], seed: int, size: dict[str, Any]) -> ad.AnnData:
    """Draw a data set; `size` is for quick tries, and does not replace what the data set is about."""
    return sv.datasets.simulate_perturbations(**{**size, **options}, random_state=seed)


def scored_cells(held_out: ad.AnnData) -> np.ndarray:
    """Which cells of held-out perturbations are scored: the first of each, which are in random order."""
    rank = held_out.obs.groupby(KEY, observed=True).cumcount().to_numpy()
    per_group = held_out.obs.groupby(KEY, observed=True)[KEY].transform("size").to_numpy(int)
    return rank < np.minimum(N_SCORED, per_group // 2)
