"""What `tl.svae` does before, in and after its training."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch

from .. import _logging
from ..modules.spec import ModelSpec, Part
from ..numerics.null_shifts import NullShifts, errors_needed, q_values, split_control
from ..numerics.shift_rule import ShiftRule
from ..posterior.programs import latent_programs
from ..store.keys import Keys
from ..store.perturbation_tables import ShiftedBy, shift_tables
from ..store.perturbations import Perturbations, forgotten_control, read_perturbations
from ..store.scale import PER_10K
from ..store.write import Beside, Extras
from ..training.shifted import ShiftPlan, centred_shifts, fit_shifted, posterior_means
from ._assemble import check_against_data, library_part, model_spec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scipy import sparse

    from ..modules.priors import SparseShift
    from ..modules.vae import VAE
    from ..numerics.label_shifts import ShiftEstimate
    from ..posterior import LatentMoments
    from ..store.read import Data
    from ..training import TrainingConfig
    from ..training.batches import CellTable
    from ..training.choose import Chosen
    from ._assemble import Architecture

UNGATED = ("vae", "beta-vae")
"""Methods whose prior knows nothing of perturbations."""
SECOND_SHARE = 0.5
"""Epochs with gates, as a share of those before the turn."""
LIKELY = 0.5
"""Probability from which a gate counts as open."""
FALSE_OPEN = 0.05
"""Chance that noise alone opens any gate of a perturbation."""
ORIGINAL_WEIGHT = 25.0
"""Weight of the mean gate in the loss of a cell in sVAE."""


@dataclass
class SparseShifts:
    """One call of `tl.svae`; what a step finds and a later one needs is kept here."""

    given: Mapping[str, Any]
    architecture: Architecture
    null_groups: np.ndarray | None
    """Group of each cell of the control, -1 for none; None to split at random."""
    perturbations: Perturbations = field(init=False)
    plan: ShiftPlan = field(init=False)
    density: np.ndarray = field(init=False)
    validation_rows: np.ndarray = field(init=False)
    shifted: ShiftedBy = field(init=False)

    def make_spec(self, data: Data) -> ModelSpec:
        """Specification of the model for the data that were read."""
        given = self.given
        check_against_data(self.architecture, data.dims, given["batch_key"], given["perturbation_key"])
        self.perturbations = read_perturbations(data.categories.labels, given["control"])
        _warn_of_control(self.perturbations)
        self.plan = self._plan(data.table.n_cells)
        part = library_part(self.architecture, data.table, size_factors=given["size_factor_key"] is not None)
        options: dict[str, Any] = {
            "n_perturbations": len(self.perturbations.names),
            "n_links": len(self.perturbations.label),
            "n_latent": self.architecture.n_latent,
            "gates": "open" if given["method"] == "ivae" else given["gates"],
            "pricing": "linear" if given["method"] == "svae" else "log",
        }
        return replace(model_spec(self.architecture, data.dims, part), prior=Part("sparse_shift", options))

    def train(self, spec: ModelSpec, data: CellTable, config: TrainingConfig, **options: Any) -> Chosen:
        """Fit the model."""
        fitted = fit_shifted(spec, data, config, self.plan, **options)
        self.density, self.validation_rows = fitted.density, fitted.chosen.result.validation_rows
        return fitted.chosen

    def finish(self, model: VAE, table: CellTable, device: torch.device) -> Mapping[str, Any]:
        """Move the control to zero, fix gates and shifts, and say what they are."""
        prior = cast("SparseShift", model.prior)
        probability = prior.open_probability().detach().cpu().numpy()
        estimate = centred_shifts(model, table, self.plan)
        means = posterior_means(model, table)
        null = self._null(means, estimate, table)
        rule = self.plan.rule._replace(min_errors=errors_needed(null, means.shape[1], FALSE_OPEN))
        decision = Decision(self.given["method"], rule, by_price=self.plan.fixed_price is not None)
        self.shifted = decision.on(self.perturbations.names, estimate, probability, null)
        prior.harden(torch.from_numpy(decision.gates(self.shifted)), torch.from_numpy(self.shifted.effect))
        within = {"variance": estimate.variance, "batch_shift": estimate.batch_shift}
        n_control = int(np.isin(table.labels, self.perturbations.control).sum())
        found = {"rule": rule._asdict(), "gate_density": self.density, "n_control": n_control, "within": within}
        return found | null_entry(null) | self._tables(means, table)

    def annotate(self, model: VAE, table: CellTable, latent: LatentMoments, device: torch.device) -> Extras:
        """Basal states and responses of cells, and what latent dimensions do to genes."""
        keys = Keys(self.given["key_added"])
        label_shift = self._label_shift()
        is_control = np.isin(table.labels, self.perturbations.control)
        rows = np.flatnonzero(is_control) if is_control.any() else np.arange(table.n_cells)
        basal = latent.mean - label_shift[table.labels]
        seed = int(self.given["random_state"])
        programs = latent_programs(model, table, rows, basal, random_state=seed, device=device)
        return Extras(
            obs={keys.response: responses(latent.mean, label_shift[table.labels])},
            var={keys.basal_expression: programs.proportions * PER_10K},
            obsm={keys.basal: basal},
            varm={keys.programs: programs.slopes},
        )

    def _plan(self, n_cells: int) -> ShiftPlan:
        given, perturbations = self.given, self.perturbations
        price = given["gate_price"]
        if price is None and given["method"] == "svae":
            price = ORIGINAL_WEIGHT * n_cells / (len(perturbations.names) * given["n_latent"])
        return ShiftPlan(
            label=perturbations.label,
            perturbation=perturbations.perturbation,
            n_perturbations=len(perturbations.names),
            control=len(perturbations.control) > 0,
            rotate=given["init"] == "rotate",
            second_share=0.0 if given["method"] in UNGATED else SECOND_SHARE,
            rule=ShiftRule(
                float(given["min_shift"]),
                float(given["min_share"]),
                errors_needed(None, given["n_latent"], FALSE_OPEN),
            ),
            fixed_price=price,
        )

    def _null(self, means: np.ndarray, estimate: ShiftEstimate, table: CellTable) -> NullShifts | None:
        """Shifts of parts of the control; None without a control."""
        rows = np.flatnonzero(np.isin(table.labels, self.perturbations.control))
        z = means[rows] - estimate.batch_shift[table.batch[rows]]
        groups = None if self.null_groups is None else self.null_groups[rows]
        rng = np.random.default_rng(int(self.given["random_state"]))
        return split_control(z, estimate.variance, estimate.n_cells, rng=rng, groups=groups)

    def _label_shift(self) -> np.ndarray:
        """Shift of the cells of each label, (n_labels, n_latent)."""
        n_labels = 1 + int(max(self.perturbations.label.max(), self.perturbations.control.max(initial=0)))
        return shift_of_labels(self.plan.design(n_labels), self.shifted.effect)

    def _tables(self, means: np.ndarray, table: CellTable) -> dict[str, Any]:
        """Tables of perturbations, their effects and their targets."""
        response = responses(means, self._label_shift()[table.labels])
        held_out = np.zeros(table.n_cells, bool)
        held_out[self.validation_rows] = True
        of_label = self.plan.design(1 + int(table.labels.max()))
        mean_response = mean_by_perturbation(response, table.labels, of_label)
        gain = mean_by_perturbation(response[held_out], table.labels[held_out], of_label)
        return shift_tables(self.shifted, mean_response, gain)


def beside(keys: Keys) -> Beside:
    """Names of what is written beyond what every fit writes."""
    return Beside((keys.response,), (keys.basal_expression,), (keys.basal,), (keys.programs,))


class Decision(NamedTuple):
    """How it is decided what a perturbation does."""

    method: str
    rule: ShiftRule
    by_price: bool
    """Whether a gate is open by its probability alone."""

    @property
    def gated(self) -> bool:
        """Whether the prior knows perturbations."""
        return self.method not in UNGATED

    def on(
        self, names: Sequence[str], estimate: ShiftEstimate, probability: np.ndarray, null: NullShifts | None
    ) -> ShiftedBy:
        """Decide which gates are open, and what moves cells; `probability` is that of an open gate in the fit."""
        opened = self.rule.opens(estimate.shift, estimate.standard_error)
        if not self.gated:
            probability = opened.astype(np.float32)
        elif self.by_price:
            opened = probability > LIKELY
        else:
            opened &= probability > LIKELY
        scores = np.abs(estimate.shift) / estimate.standard_error
        return ShiftedBy(
            names=names,
            n_cells=estimate.n_cells,
            shift=estimate.shift,
            standard_error=estimate.standard_error,
            probability=probability,
            q_value=q_values(scores, null),
            is_target=opened,
            effect=estimate.shift if self.method == "ivae" else np.where(opened, estimate.shift, np.float32(0)),
        )

    def gates(self, shifted: ShiftedBy) -> np.ndarray:
        """Which gates of the prior are open; none where it knows no perturbations."""
        return shifted.effect != 0 if self.gated else np.zeros_like(shifted.is_target)


def responses(z: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """How much likelier states are under N(shift, I) than under N(0, I), nats; 0 without a shift."""
    found: np.ndarray = (shift * (z - shift / 2)).sum(1).astype(np.float32)
    return found


def shift_of_labels(design: sparse.csr_array, effect: np.ndarray) -> np.ndarray:
    """Shift of the cells of each label, (n_labels, n_latent), float32, from those of its perturbations."""
    shift: np.ndarray = design.astype(np.float32) @ effect
    return shift


def mean_by_perturbation(values: np.ndarray, labels: np.ndarray, design: sparse.csr_array) -> np.ndarray:
    """Mean over the cells with each perturbation, alone or with others; NaN without cells."""
    n, total = (design.T @ np.bincount(labels, w, design.shape[0]).astype(float) for w in (None, values))
    return np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)


def null_entry(null: NullShifts | None) -> dict[str, Any]:
    """What is stored of the split control."""
    if null is None:
        return {}
    return {"null_shifts": null.shift, "null_errors": null.standard_error, "null_cells": null.n_cells}


def _warn_of_control(perturbations: Perturbations) -> None:
    """Say where a control seems to have been forgotten."""
    name = forgotten_control(perturbations.names)
    if name is not None and not len(perturbations.control):
        _logging.warning(
            f"{name!r} is taken for a perturbation. If these cells are the control, pass `control={name!r}`."
        )
