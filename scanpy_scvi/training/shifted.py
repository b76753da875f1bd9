"""Fit a model whose prior has sparse shifts, from a latent space that was turned to make them sparse."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch

from ..modules.latent_map import LatentMap
from ..modules.priors import PerturbationLinks, SparseShift
from ..modules.spec import Part
from ..numerics.label_shifts import ShiftEstimate, estimate_shifts, link_design
from ..numerics.orthogonal_search import polar
from ..numerics.shift_rule import gate_probability
from ..numerics.sparse_rotation import LEAST_CELLS, LEAST_GROUPS, sparse_rotation
from .choose import Chosen
from .fit import FitResult, encoded_means, fit
from .random import seeded

if TYPE_CHECKING:
    from scipy import sparse

    from ..modules.spec import ModelSpec
    from ..modules.vae import VAE
    from ..numerics.shift_rule import ShiftRule
    from ..numerics.sparse_rotation import Rotation
    from .batches import CellTable
    from .config import TrainingConfig

WARM_LOGIT = 5.0
"""Log odds at the start of a gate that the rotation says is open; of others, minus that."""
CERTAIN = 1e-6
"""Probability of a gate that is taken for open, or for closed."""


@dataclass(frozen=True)
class ShiftPlan:
    """How sparse shifts are fitted."""

    label: np.ndarray
    """Label of each link to a perturbation, (n_links,)."""
    perturbation: np.ndarray
    """Its perturbation, (n_links,)."""
    n_perturbations: int
    control: bool
    """Whether some label has no perturbation."""
    rotate: bool
    """Whether to start from a plain autoencoder whose latent space is turned."""
    second_share: float
    """Epochs after that turn, as a share of those before; 0 ends the fit there, with all gates closed."""
    rule: ShiftRule
    """Which shifts count before gates are fitted."""
    fixed_price: float | None = None
    """Price of every gate, nats; None for the larger of n_k delta^2 / 2 and z^2 / 2."""

    def design(self, n_labels: int) -> sparse.csr_array:
        """Which perturbations (columns) a label (row) stands for, 0 or 1."""
        return link_design(self.label, self.perturbation, n_labels, self.n_perturbations)


class Warm(NamedTuple):
    """A plain autoencoder, and the rotation of its latent space where perturbations say how."""

    model: VAE
    rotation: Rotation | None
    result: FitResult


class Shifted(NamedTuple):
    """A fit of sparse shifts, its gates left as probabilities."""

    chosen: Chosen
    density: np.ndarray
    """Share of gates that are likelier open than closed, after every epoch with gates."""


def fit_shifted(spec: ModelSpec, data: CellTable, config: TrainingConfig, plan: ShiftPlan, **options: Any) -> Shifted:
    """Fit the model of `spec`, whose prior is a :class:`.SparseShift`.

    With `plan.rotate`, or without epochs for gates, a model with a standard normal prior is fitted first. With
    `plan.rotate` its latent space is turned so that the centroids of perturbations are sparse. From there the fit goes
    on with gates.
    """
    model = _priced(spec, data, plan)
    if not plan.rotate and plan.second_share:
        result = fit(model, data, config, note=partial(_share_open, model), **options)
        return Shifted(Chosen(spec, model, result, None), np.array(result.notes))
    warm = _warm_start(spec, data, config, plan, **options)
    _take_over(model, warm, data, config, plan)
    if not plan.second_share:
        return _without_gates(spec, model, warm.result)
    if warm.result.convergence.verdict == "interrupted":
        return _without_gates(spec, model, _stopped(warm.result))
    second = max(1, round(plan.second_share * config.max_epochs))
    again = replace(config, start_from_data=False, max_epochs=second, kl_warmup=0.0)
    try:
        result = fit(model, data, again, note=partial(_share_open, model), **options)
    except KeyboardInterrupt:  # within the first epoch with gates; after it, `fit` itself keeps what there is
        if options.get("on_interrupt", "raise") == "raise":
            raise
        model = _priced(spec, data, plan)
        _take_over(model, warm, data, config, plan)
        return _without_gates(spec, model, _stopped(warm.result))
    if warm.rotation is not None:
        turn_again(model, data, plan, config.random_state)
    return Shifted(Chosen(spec, model, _after(warm.result, result), None), np.array(result.notes))


def _priced(spec: ModelSpec, data: CellTable, plan: ShiftPlan) -> VAE:
    """A new model whose prior knows which perturbations labels stand for, and what gates cost."""
    model = spec.build().float()
    prior = cast("SparseShift", model.prior)
    prior.set_links(PerturbationLinks(torch.from_numpy(plan.label), torch.from_numpy(plan.perturbation)))
    set_price(prior, data, plan)
    return model


def _without_gates(spec: ModelSpec, model: VAE, result: FitResult) -> Shifted:
    """A plain autoencoder, turned, as a fit whose gates are all closed."""
    cast("SparseShift", model.prior).close()
    return Shifted(Chosen(spec, model.eval(), result, None), np.empty(0))


def _stopped(first: FitResult) -> FitResult:
    """Say that a fit was stopped before it had gates."""
    n = len(first.history)
    told = (
        f"interrupted after {n} epochs: stopped by hand before gates were fitted, so all are closed; the best weights "
        "without them were kept"
    )
    return first._replace(convergence=replace(first.convergence, verdict="interrupted", message=told))


def _share_open(model: VAE) -> float:
    """Share of gates that are likelier open than closed."""
    return float((cast("SparseShift", model.prior).logit.detach() > 0).float().mean())


def _after(first: FitResult, second: FitResult) -> FitResult:
    """Return the second result with the history of both."""
    n = len(first.history)
    history = first.history + [record._replace(epoch=record.epoch + n) for record in second.history]
    told = f"{second.convergence.message} ({n} epochs without gates before)"
    verdict = replace(second.convergence, best_epoch=second.convergence.best_epoch + n, message=told)
    return second._replace(history=history, convergence=verdict)


@torch.no_grad()
def set_price(prior: SparseShift, data: CellTable, plan: ShiftPlan) -> None:
    """Price gates so that one pays where a shift is larger than delta and z standard errors."""
    n_cells = plan.design(prior.n_labels).T @ np.bincount(data.labels, minlength=prior.n_labels)
    price = plan.rule.price(n_cells)
    if plan.fixed_price is not None:
        price = np.full_like(price, plan.fixed_price)
    prior.price.copy_(torch.from_numpy(price)[:, None].expand_as(prior.price))


def _warm_start(spec: ModelSpec, data: CellTable, config: TrainingConfig, plan: ShiftPlan, **options: Any) -> Warm:
    """Fit a plain autoencoder and turn it."""
    model = replace(spec, prior=Part("normal")).build().float()
    result = fit(model, data, config, **options)
    groups, control = single_groups(plan, data.labels, spec.dims.n_labels)
    means = posterior_means(model, data)
    if not plan.rotate or not can_rotate(groups, control, means.shape[1]):
        return Warm(model, None, result)
    rotation = sparse_rotation(means, groups, control=control, random_state=config.random_state)
    return Warm(model, rotation, result)


def can_rotate(groups: np.ndarray, control: int | None, n_latent: int) -> bool:
    """Whether :func:`.sparse_rotation` has enough to turn by: perturbations with cells of their own, and spread."""
    n_cells = np.bincount(groups[groups >= 0])
    perturbed = np.delete(n_cells, [] if control is None else control)
    enough = (perturbed >= LEAST_CELLS).sum() >= LEAST_GROUPS
    return bool(enough and n_cells.sum() - len(n_cells) >= n_latent)


def single_groups(plan: ShiftPlan, labels: np.ndarray, n_labels: int) -> tuple[np.ndarray, int | None]:
    """Group of each cell by its one perturbation or as control, numbered without gaps, -1 for combinations."""
    n_links = np.bincount(plan.label, minlength=n_labels)
    of_label = np.where(n_links == 0, plan.n_perturbations, -1)
    alone = n_links[plan.label] == 1
    of_label[plan.label[alone]] = plan.perturbation[alone]
    group = of_label[labels]
    there = np.unique(group[group >= 0])
    number = np.full(plan.n_perturbations + 2, -1)
    number[there] = np.arange(len(there))
    has_control = len(there) > 0 and there[-1] == plan.n_perturbations
    return number[group], int(len(there) - 1) if has_control else None


@torch.no_grad()
def _take_over(model: VAE, warm: Warm, data: CellTable, config: TrainingConfig, plan: ShiftPlan) -> None:
    """Give a model the weights of the plain one, turned, and gates and shifts as the turned cells have them."""
    shared = {name: t for name, t in warm.model.cpu().state_dict().items() if not name.startswith("prior.")}
    model.load_state_dict(shared, strict=False)
    if warm.rotation is not None:
        _fold(model, warm.rotation.matrix, warm.rotation.center)
    with seeded(config.random_state):
        found = centred_shifts(model, data, plan)
    prior = cast("SparseShift", model.prior)
    prior.shift.copy_(torch.from_numpy(found.shift))
    if isinstance(prior.logit, torch.nn.Parameter):
        opened = torch.from_numpy(plan.rule.opens(found.shift, found.standard_error))
        prior.logit.copy_(torch.where(opened, WARM_LOGIT, -WARM_LOGIT))


@torch.no_grad()
def turn_again(model: VAE, data: CellTable, plan: ShiftPlan, random_state: int) -> None:
    """Turn the latent space of a fit with gates, which drifts where shifts are weak, and take gates from its cells.

    The turn is orthogonal: the prior's unit covariance stays what it is.
    """
    device = next(model.parameters()).device
    model.cpu().eval()
    prior = cast("SparseShift", model.prior)
    groups, control = single_groups(plan, data.labels, prior.n_labels)
    means = posterior_means(model, data)
    rotation = sparse_rotation(means, groups, control=control, random_state=random_state)
    _fold(model, polar(rotation.matrix), np.zeros(means.shape[1]))
    found = centred_shifts(model, data, plan)
    prior.shift.copy_(torch.from_numpy(found.shift))
    if isinstance(prior.logit, torch.nn.Parameter):
        q = gate_probability(found.evidence, prior.price.numpy(), linear=prior.pricing == "linear")
        prior.logit.copy_(torch.logit(torch.from_numpy(q), eps=CERTAIN))
    model.to(device)


def _fold(model: VAE, matrix: np.ndarray, centre: np.ndarray) -> None:
    """Let the model have the latent states (z - centre) matrix."""
    latent = LatentMap(*(torch.from_numpy(np.asarray(x, np.float32)) for x in (matrix, centre)))
    model.encoder.map_latent(latent)
    model.decoder.map_latent(latent)


@torch.no_grad()
def centred_shifts(model: VAE, data: CellTable, plan: ShiftPlan) -> ShiftEstimate:
    """Shifts that posterior means ask for, all gates open; the control, if there is one, is moved to zero before."""
    device = next(model.parameters()).device
    was_training = model.training
    model.cpu().eval()
    design = plan.design(cast("SparseShift", model.prior).n_labels)
    means = posterior_means(model, data)
    found = estimate_shifts(means, data.labels, design, batch=data.batch, free_origin=plan.control)
    if plan.control:
        _fold(model, np.eye(means.shape[1]), found.origin)
        found = found._replace(origin=np.zeros_like(found.origin))
    model.to(device).train(was_training)
    return found


@torch.no_grad()
def posterior_means(model: VAE, data: CellTable) -> np.ndarray:
    """Posterior means of all cells, (n_cells, n_latent)."""
    device = next(model.parameters()).device
    means: np.ndarray = encoded_means(model, data, np.arange(data.n_cells), device).cpu().numpy()
    return means
