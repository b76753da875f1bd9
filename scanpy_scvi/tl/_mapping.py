"""A fitted model that grows by the batches of new cells, and learns them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np

from ..modules.growth import Grown, Growth, grow
from ..posterior.depth import match_depth
from ..store.representations import with_representations
from ..training import FitResult, NonFiniteLoss, TrainingConfig, fit, seeded
from ..training.new_entries import NewEntries
from ..training.represent import represent
from ..training.start import start_new_batch
from ._fit import lent_to_training

if TYPE_CHECKING:
    import torch

    from ..modules.cells import Dimensions
    from ..modules.vae import VAE
    from ..store.covariates import Categories
    from ..store.load import Fitted
    from ..training.batches import CellTable

MIN_NEW = 10
"""Cells with new categories from which their columns are learned."""


def grown_model(fitted: Fitted, table: CellTable, categories: Categories) -> Grown:
    """Return the reference's model with room for the categories of a query."""
    old = fitted.spec.dims
    n_categories = tuple(len(names) for names in categories.categorical)
    growth = Growth(
        old=old,
        new=replace(old, n_batches=len(categories.batch), n_labels=len(categories.labels), n_categories=n_categories),
        shares=(np.asarray(fitted.categories.batch_weights), *(np.ones(n) for n in old.n_categories)),
        log_totals=tuple(table.log_total[table.batch == code] for code in range(old.n_batches, len(categories.batch))),
    )
    with seeded(0):  # the new model is made with random weights, all of which are then set
        return grow(fitted.spec, fitted.model, growth)


def newcomers(table: CellTable, known: Dimensions) -> np.ndarray:
    """Cells with a category that the reference does not have."""
    sizes = np.array(known.n_categories, np.int64)
    return np.flatnonzero((table.batch >= known.n_batches) | (table.categorical >= sizes).any(1))


def placed(grown: Grown, table: CellTable, device: torch.device) -> Grown:
    """Return the model with latent states found for these cells, where it has no encoder to give them; else itself."""
    if grown.model.encoder.representations() is None:
        return grown
    z = represent(grown.model, table, np.arange(table.n_cells), device=device)
    model = with_representations(grown.model, z).eval()
    return grown._replace(spec=grown.spec.for_cells(table.n_cells), model=model)


def scale_inputs(
    grown: Grown, n_known: int, table: CellTable, depth: np.ndarray, present: np.ndarray, device: torch.device
) -> None:
    """Have the encoder take cells of new batches to be as deep as their like; the model knows the first `n_known`."""
    model = grown.model.to(device)
    for code in _new_batches(n_known, table):
        cells = table.subset(np.flatnonzero(table.batch == code))
        match_depth(model, cells, code, depth, present=present, device=device)


def learn(
    grown: Grown,
    n_known: int,
    table: CellTable,
    config: TrainingConfig,
    device: torch.device,
    *,
    progress: bool | None,
) -> FitResult:
    """Fit what is new of a model to the cells that it is new for; it knows the first `n_known` batches."""
    with lent_to_training(config, device, progress=progress) as on_epoch:
        model = NewEntries(grown).to(device)
        for code in _new_batches(n_known, table):
            rows = np.flatnonzero(table.batch == code)
            start_new_batch(_of_cells(model.model, rows), table.subset(rows), code, device=device)
        try:
            return fit(cast("VAE", model), table, config, device=device, on_epoch=on_epoch)
        except NonFiniteLoss as error:
            msg = (
                f"The loss became infinite or NaN ({error.culprit.term}), first in cell number {error.culprit.cell} of "
                "those with new categories. Look at the cells with `scanpy_scvi.pp.check`, lower `learning_rate`, or "
                "pass `update_weights=False`."
            )
            raise FloatingPointError(msg) from error


def _of_cells(model: VAE, rows: np.ndarray) -> VAE:
    """Return the model for some of its cells, where it holds their latent states."""
    table = model.encoder.representations()
    return model if table is None else with_representations(model, table.detach()[rows]).eval()


def _new_batches(n_known: int, table: CellTable) -> list[int]:
    """Codes of new batches that have cells."""
    return np.unique(table.batch[table.batch >= n_known]).tolist()
