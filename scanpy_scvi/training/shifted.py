"""Fit a model whose prior has sparse shifts, from a latent space that was turned to make them sparse."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch

from ..modules.latent_map import LatentMap
from ..modules.priors import PerturbationLinks, SparseShift
from ..modules.spec import Part
from ..numerics.label_shifts import ShiftEstimate, estimate_shifts
from ..numerics.sparse_rotation import sparse_rotation
from .batches import minibatches
from .choose import Chosen
from .fit import EVALUATION_BATCH, FitResult, fit
from .random import seeded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..modules.spec import ModelSpec
    from ..modules.vae import VAE
    from ..numerics.sparse_rotation import Rotation
    from .batches import CellTable
    from .config import TrainingConfig

LEAST_GROUPS = 2
WARM_LOGIT = 5.0
"""Log odds at the start of a gate that the rotation says is open; of others, minus that."""


@dataclass(frozen=True)
class ShiftPlan:
    """How sparse shifts are fitted."""

    label: np.ndarray
    """Label of each link to a perturbation, (n_links,)."""
    perturbation: np.ndarray
    """Its perturbation, (n_links,)."""
    n_perturbations: int
    rotate: bool
    """Whether to start from a plain autoencoder whose latent space is turned."""
    second_share: float
    """Epochs after that turn, as a share of those before."""
    min_shift: float
    """Smallest shift of an open gate, delta, in standard deviations of the prior."""
    min_errors: float
    """The same in standard errors, z."""
    fixed_price: float | None = None
    """Price of every gate, nats; None for the larger of n_k delta^2 / 2 and z^2 / 2."""

    def design(self, n_labels: int) -> np.ndarray:
        """Which perturbations (columns) a label (row) stands for, 0 or 1."""
        design = np.zeros((n_labels, self.n_perturbations))
        design[self.label, self.perturbation] = 1
        return design


class Warm(NamedTuple):
    """A plain autoencoder and the rotation of its latent space."""

    model: VAE
    rotation: Rotation
    means: np.ndarray
    """Posterior means after the rotation, (n_cells, n_latent)."""
    result: FitResult


def fit_shifted(spec: ModelSpec, data: CellTable, config: TrainingConfig, plan: ShiftPlan, **options: Any) -> Chosen:
    """Fit the model of `spec`, whose prior is a :class:`.SparseShift`; gates are left as probabilities.

    With `plan.rotate` a model with a standard normal prior is fitted first, its latent space is turned so that
    the centroids of perturbations are sparse, and the fit goes on from there with gates.
    """
    model = spec.build().float()
    prior = cast("SparseShift", model.prior)
    links = PerturbationLinks(torch.from_numpy(plan.label), torch.from_numpy(plan.perturbation))
    prior.set_links(links)
    set_price(prior, data, plan)
    warm = _warm_start(spec, data, config, plan, **options) if plan.rotate else None
    if warm is None:
        return Chosen(spec, model, fit(model, data, config, **options), None)
    with seeded(config.random_state):
        _take_over(model, warm, data, plan)
    second = max(1, round(plan.second_share * config.max_epochs))
    again = replace(config, start_from_data=False, max_epochs=second, kl_warmup=0.0)
    return Chosen(spec, model, fit(model, data, again, **options), None)


@torch.no_grad()
def set_price(prior: SparseShift, data: CellTable, plan: ShiftPlan) -> None:
    """Price gates so that one pays where a shift is larger than delta and z standard errors."""
    n_cells = plan.design(prior.n_labels).T @ np.bincount(data.labels, minlength=prior.n_labels)
    price = np.maximum(n_cells * plan.min_shift**2, plan.min_errors**2) / 2
    if plan.fixed_price is not None:
        price = np.full(plan.n_perturbations, plan.fixed_price)
    prior.price.copy_(torch.from_numpy(price)[:, None].expand_as(prior.price))


def _warm_start(
    spec: ModelSpec, data: CellTable, config: TrainingConfig, plan: ShiftPlan, **options: Any
) -> Warm | None:
    """Fit a plain autoencoder and turn it; None where perturbations cannot say how."""
    groups, control = single_groups(plan, data.labels, spec.dims.n_labels)
    if len(np.unique(groups[groups >= 0])) - (control is not None) < LEAST_GROUPS:
        return None
    model = replace(spec, prior=Part("normal")).build().float()
    result = fit(model, data, config, **options)
    means = posterior_means(model, data)
    rotation = sparse_rotation(means, groups, control=control, random_state=config.random_state)
    return Warm(model, rotation, rotation.rotate(means), result)


def single_groups(plan: ShiftPlan, labels: np.ndarray, n_labels: int) -> tuple[np.ndarray, int | None]:
    """Group of each cell by its one perturbation or as control, numbered without gaps, -1 for combinations."""
    design = plan.design(n_labels)
    of_label = np.full(n_labels, -1)
    alone, unperturbed = design.sum(1) == 1, design.sum(1) == 0
    of_label[alone] = design[alone].argmax(1)
    of_label[unperturbed] = plan.n_perturbations
    group = of_label[labels]
    there = np.unique(group[group >= 0])
    number = np.full(plan.n_perturbations + 2, -1)
    number[there] = np.arange(len(there))
    has_control = len(there) > 0 and there[-1] == plan.n_perturbations
    return number[group], int(len(there) - 1) if has_control else None


@torch.no_grad()
def _take_over(model: VAE, warm: Warm, data: CellTable, plan: ShiftPlan) -> None:
    """Give a model the weights of the plain one, turned, and gates and shifts as the turned cells have them."""
    shared = {name: t for name, t in warm.model.cpu().state_dict().items() if not name.startswith("prior.")}
    model.load_state_dict(shared, strict=False)
    matrix, centre = (torch.from_numpy(np.asarray(x, np.float32)) for x in (warm.rotation.matrix, warm.rotation.center))
    model.encoder.map_latent(LatentMap(matrix, centre))
    model.decoder.map_latent(LatentMap(matrix, centre))
    found = shifts_of(warm.means, data.labels, model.prior, plan)
    prior = cast("SparseShift", model.prior)
    prior.shift.copy_(torch.from_numpy(found.shift))
    if isinstance(prior.logit, torch.nn.Parameter):
        opened = torch.from_numpy(opened_gates(found, plan))
        prior.logit.copy_(torch.where(opened, WARM_LOGIT, -WARM_LOGIT))


def shifts_of(means: np.ndarray, labels: np.ndarray, prior: Any, plan: ShiftPlan) -> ShiftEstimate:
    """Shifts that posterior means ask for, all gates open."""
    return estimate_shifts(means, labels, plan.design(prior.n_labels))


def opened_gates(found: ShiftEstimate, plan: ShiftPlan) -> np.ndarray:
    """Which shifts are larger than delta and than z standard errors, (n_perturbations, n_latent)."""
    opened: np.ndarray = np.abs(found.shift) > np.maximum(plan.min_shift, plan.min_errors * found.standard_error)
    return opened


@torch.no_grad()
def posterior_means(model: VAE, data: CellTable) -> np.ndarray:
    """Posterior means of all cells, (n_cells, n_latent)."""
    device = next(model.parameters()).device
    parts: Sequence[np.ndarray] = [
        model.encode(data.take(part).to(device)).mean.cpu().numpy()
        for part in minibatches(np.arange(data.n_cells), EVALUATION_BATCH)
    ]
    return np.concatenate(parts)
