"""scVI whose latent state is moved by perturbations, each along few dimensions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from scipy import stats

from .. import _logging
from .._docs import with_parameters_of
from ..modules.spec import ModelSpec, Part
from ..store.perturbations import Perturbations, forgotten_control, read_perturbations
from ..training.shifted import ShiftPlan, fit_shifted, opened_gates, posterior_means, shifts_of
from ._assemble import architecture_of, check_against_data, check_choice, check_number, library_part, model_spec
from ._fit import Around
from ._model import fit_model
from ._presets import resolve_options
from ._scvi import scvi

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from ..modules.priors import SparseShift
    from ..modules.vae import VAE
    from ..store.read import Data
    from ..training import TrainingConfig
    from ..training.batches import CellTable
    from ..training.choose import Chosen

METHODS = ("svae+", "svae", "ivae")
ADAM_EPS = 1e-4
SECOND_SHARE = 0.5
"""Epochs with gates, as a share of those before the turn."""
LIKELY = 0.5
"""Probability from which a gate counts as open."""
FALSE_OPEN = 0.05
"""Chance that noise alone opens any gate of a perturbation."""


@with_parameters_of(scvi)
def svae(
    adata: AnnData,
    perturbation_key: str,
    control: str | Sequence[str] | None = None,
    batch_key: str | None = None,
    *,
    method: Literal["svae+", "svae", "ivae"] = "svae+",
    gates: Literal["exact", "gumbel"] = "exact",
    init: Literal["rotate", "cold"] = "rotate",
    min_shift: float = 0.5,
    gate_price: float | None = None,
    layer: str | None = None,
    mask_var: np.ndarray | str | None = "auto",
    categorical_covariate_keys: Sequence[str] = (),
    continuous_covariate_keys: Sequence[str] = (),
    size_factor_key: str | None = None,
    likelihood: Literal["nb", "zinb", "poisson"] = "nb",
    dispersion: Literal["gene", "gene-batch", "gene-cell"] = "gene",
    library: Literal["observed", "latent"] = "observed",
    n_latent: int = 15,
    n_hidden: int = 128,
    n_layers: int = 2,
    dropout_rate: float = 0.0,
    norm: Literal["batch", "layer", "none"] = "batch",
    max_epochs: int | None = None,
    batch_size: int = 256,
    learning_rate: float = 3e-3,
    weight_decay: float = 0.0,
    kl_weight: float = 1.0,
    kl_warmup: float = 0.4,
    validation_size: float = 0.1,
    early_stopping: bool = False,
    normalized: bool | Literal["auto"] = "auto",
    key_added: str = "svae",
    store_model: bool = True,
    on_interrupt: Literal["raise", "keep"] = "raise",
    random_state: int = 0,
    device: str = "auto",
    progress: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Fit scVI with perturbations that shift few latent dimensions each (sVAE+), in place.

    The prior of a cell's latent state depends on its perturbations D, through gates that are mostly closed,

    .. math::

        p(z \mid D) = N\Bigl(\sum_{k \in D} \gamma_k \odot \mu_k,\; I\Bigr), \qquad
        \gamma_{kj} \in \{0, 1\},

    and nothing else does: the decoder sees a perturbation through z alone. Controls have no shift.

    Parameters
    ----------
    perturbation_key
        Column of `obs` with the perturbation of each cell; `"A+B"` are A and B together, whose shifts add up.
    control
        Name, or names, of cells without a perturbation, which are at the origin. Without one the origin is the median
        perturbation.
    method
        `"svae+"`: gates with a price that no perturbation of few cells can pay for noise. `"svae"`: one price for all
        gates, `gate_price`. `"ivae"`: all gates open, for nothing.
    gates
        `"exact"`: the mean over gates in closed form. `"gumbel"`: draws, as in the original.
    init
        `"rotate"`: start from a plain autoencoder, turned as :func:`rotate` does. `"cold"`: from noise.
    min_shift
        Smallest shift of an open gate, in standard deviations of the prior.
    gate_price
        Price of a gate of `method="svae"`, nats.

    Returns
    -------
    `None`, or the changed copy. Written is what :func:`scvi` writes under the name `svae`, and `uns["svae"]` with
    `perturbations`, `shifts`, `probabilities`, `standard_errors`, `targets` and `n_cells`.

    Raises
    ------
    ValueError, KeyError, TypeError
        For input that cannot be modelled; `adata` stays as it was.
    FloatingPointError
        When the loss stays infinite or NaN after restarts at lower rates.

    References
    ----------
    Lopez et al. 2023, Learning causal representations of single cells via sparse mechanism shift modeling, CLeaR, PMLR
    213:662, arXiv 2211.03553.
    """
    given = resolve_options(svae, locals())
    check_choice(method, METHODS, "method")
    check_choice(gates, ("exact", "gumbel"), "gates")
    check_choice(init, ("rotate", "cold"), "init")
    check_number(min_shift, 0, np.inf, "min_shift")
    given |= {"inject_covariates": True, "encode_covariates": False, "adam_eps": ADAM_EPS}
    given["labels_key"] = perturbation_key
    architecture = architecture_of(given)
    found: list[tuple[Perturbations, ShiftPlan]] = []

    def make_spec(data: Data) -> ModelSpec:
        check_against_data(architecture, data.dims, batch_key, perturbation_key)
        perturbations = read_perturbations(data.categories.labels, control)
        _warn_of_control(perturbations)
        found[:] = [(perturbations, _plan(given, perturbations))]
        part = library_part(architecture, data.table, size_factors=size_factor_key is not None)
        options: dict[str, Any] = {"n_perturbations": len(perturbations.names), "n_links": len(perturbations.label)}
        options |= {"n_latent": architecture.n_latent, "gates": "open" if method == "ivae" else gates}
        return replace(model_spec(architecture, data.dims, part), prior=Part("sparse_shift", options))

    def train(spec: ModelSpec, data: CellTable, config: TrainingConfig, **options: Any) -> Chosen:
        return fit_shifted(spec, data, config, found[0][1], **options)

    def finish(model: VAE, table: CellTable, device: torch.device) -> Mapping[str, Any]:
        perturbations, plan = found[0]
        prior = cast("SparseShift", model.prior)
        probability = prior.open_probability().detach().cpu().numpy()
        estimate = shifts_of(posterior_means(model, table), table.labels, prior, plan)
        opened = (probability > LIKELY) & opened_gates(estimate, plan)
        opened |= method == "ivae"
        prior.harden(torch.from_numpy(opened), torch.from_numpy(estimate.shift))
        return {
            "perturbations": list(perturbations.names),
            "shifts": np.where(opened, estimate.shift, 0),
            "probabilities": probability,
            "standard_errors": estimate.standard_error,
            "targets": opened,
            "n_cells": estimate.n_cells,
        }

    return fit_model(svae, given, make_spec, Around(finish=finish, train=train))


def _plan(given: Mapping[str, Any], perturbations: Perturbations) -> ShiftPlan:
    """How shifts are fitted to these perturbations."""
    n_gates = given["n_latent"]
    return ShiftPlan(
        label=perturbations.label,
        perturbation=perturbations.perturbation,
        n_perturbations=len(perturbations.names),
        rotate=given["init"] == "rotate",
        second_share=SECOND_SHARE,
        min_shift=float(given["min_shift"]),
        min_errors=float(stats.norm.isf(FALSE_OPEN / (2 * n_gates))),
        fixed_price=given["gate_price"],
    )


def _warn_of_control(perturbations: Perturbations) -> None:
    """Say where a control seems to have been forgotten."""
    name = forgotten_control(perturbations.names)
    if name is not None and not len(perturbations.control):
        _logging.warning(
            f"{name!r} is taken for a perturbation. If these cells are the control, pass `control={name!r}`."
        )
