"""scVI whose latent state is moved by perturbations, each along few dimensions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .._docs import with_parameters_of
from ..store.covariates import group_names
from ..store.keys import Keys
from ..store.perturbations import check_perturbation_key, names_of_table
from ..store.write import actualise
from ._assemble import architecture_of, check_choice, check_number
from ._fit import Around
from ._model import fit_model
from ._presets import resolve_options
from ._scvi import scvi
from ._sparse_shifts import SparseShifts, beside

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from anndata import AnnData

METHODS = ("svae+", "svae", "ivae", "beta-vae", "vae")
ADAM_EPS = 1e-4
CONTROL = "control"
"""Name of cells without perturbations, where a table says which have some."""
BETA = 2.0
"""Weight of the KL of `method="beta-vae"`."""


@with_parameters_of(scvi)
def svae(
    adata: AnnData,
    perturbation_key: str,
    *,
    control: str | Sequence[str] | None = None,
    batch_key: str | None = None,
    method: Literal["svae+", "svae", "ivae", "beta-vae", "vae"] = "svae+",
    gates: Literal["exact", "gumbel"] = "exact",
    init: Literal["rotate", "cold"] = "rotate",
    min_shift: float = 0.5,
    min_share: float = 0.3,
    gate_price: float | None = None,
    null_key: str | None = None,
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
    kl_weight: float | None = None,
    kl_warmup: float = 0.4,
    validation_size: float = 0.1,
    early_stopping: bool = False,
    normalized: bool | Literal["auto"] = "auto",
    key_added: str = "svae",
    store_model: bool = True,
    on_interrupt: Literal["raise", "keep"] = "raise",
    random_state: int = 0,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    progress: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    r"""Fit scVI with perturbations that shift few latent dimensions each (sVAE+), in place.

    The prior of a cell's latent state depends on its perturbations D through gates that are mostly closed,

    .. math::

        p(z \mid D) = N\Bigl(\sum_{k \in D} \gamma_k \odot \mu_k,\; I\Bigr), \qquad
        \gamma_{kj} \in \{0, 1\},

    and nothing else does: encoder and decoder are scVI's, and the decoder sees a perturbation through z alone. Controls
    have no shift. The bound is that of :func:`scvi` with this prior; with :math:`q_{kj}` the probability that a gate is
    open, and :math:`s = \sum_{k \in D} q_k \odot \mu_k`, its KL is in the mean over gates, exactly,

    .. math::

        \mathrm{KL}(N(m, v) \,\|\, N(0, I)) + \sum_j \Bigl[ \tfrac12 s_j^2 - m_j s_j
        + \tfrac12 \sum_{k \in D} q_{kj} (1 - q_{kj}) \mu_{kj}^2 \Bigr],

    and each gate has a price, once per data set, of :math:`-a_k \log(1 - q_{kj})` nats.

    The fit has three parts. A plain autoencoder is fitted, and its latent space is turned as :func:`rotate` does; then
    it is fitted on with gates, which start as that turn has them. At the end the latent space is turned once more,
    since axes drift where shifts are weak, and gates are those that are best for the cells as they then lie. With
    `init="cold"` there is no turn, and gates are as the fit has them. Each shift is the least-squares one given
    the cells' posterior means (the optimum of the bound for one perturbation a cell, with batches as further terms),
    the control is moved to zero, and a gate is open for good where it is likelier open than closed and

    .. math:: |\mu_{kj}| > \max\bigl(\delta,\; \rho \max_i |\mu_{ki}|,\; z\, \mathrm{se}_{kj}\bigr).

    :math:`\delta` (`min_shift`) is a size of effect, so that what counts does not depend on the number of cells; z
    protects perturbations with few of them, and is taken from parts of the control that are treated as perturbations;
    :math:`\rho` (`min_share`) leaves out what a strong shift along one dimension leaves in others, since no dimension
    is found exactly.

    A target is a latent dimension, a direction in which expression varies, and not a gene; what it is can be read from
    `varm["svae_programs"]`. That dimensions are those that perturbations act on holds where each perturbation moves
    few of them, many perturbations differ in which, and cells are as many as it takes; see the user guide on
    perturbations for what was measured, and for what differs from the original and why. Dimensions are known up to
    their order and sign. With two conditions there is nothing to find: use :func:`predict_perturbation`. The response
    of a perturbation is one shift for all cells; where cell types respond differently, fit each by itself.

    Parameters
    ----------
    perturbation_key
        Column of `obs` with the perturbation of each cell; `"A+B"` are A and B together, whose shifts add up, and
        `"A+control"` is A. Or a key of `obsm` with a table (DataFrame) of cells × perturbations, not zero where a cell
        has a perturbation; then the column `obs["svae_perturbation"]` is written from it.
    control
        Name, or names, of cells without a perturbation, which are at the origin. Without one the origin is the median
        perturbation. With a table, cells without any perturbation are the control.
    batch_key
        Column of `obs` with the batch, which the decoder is given, or None.
    method
        `"svae+"`: as above. `"svae"`: gates with one price that is linear in their probability. `"ivae"`: all gates are
        open, for nothing. `"vae"`: a prior that knows no perturbations; with `init="rotate"` it is :func:`rotate` after
        :func:`scvi`, with `init="cold"` a plain autoencoder; tables are written all the same. `"beta-vae"`: the same
        with a weight of 2 on the KL.
    gates
        `"exact"`: the mean over gates in closed form. `"gumbel"`: a draw for each cell, with the straight-through
        gradient, as in the original.
    init
        `"rotate"`: start from a plain autoencoder that is turned, and turn once more at the end. `"cold"`: from noise,
        with open gates.
    min_shift
        :math:`\delta`, standard deviations of the prior.
    min_share
        :math:`\rho`, a share of the largest shift of the same perturbation.
    gate_price
        Price a of every gate, nats; then a gate is open for good where it is likelier open than closed, whatever the
        last rule says. The original's Beta(1, K) prior is `gate_price=K - 1`. By default the price is what a gate of
        shift :math:`\delta`, or z standard errors, brings: :math:`\max(n_k \delta^2, z^2) / 2`, from twice which on
        a gate is likelier open; and for `method="svae"` that of the original's loss with a weight of 25.
    null_key
        Column of `obs` that parts the control into groups that should not differ, such as guides; by default the
        control is parted at random.
    kl_weight
        Weight of KL(q(z)); 1 by default, 2 with `method="beta-vae"`.

    Returns
    -------
    `None`, or the changed copy. Written is what :func:`scvi` writes, under the name `svae` (`obsm["X_svae"]`, …), and

    `obsm["X_svae_basal"]`
        Latent states without what perturbations add, float32.
    `obs["svae_response"]`
        How much likelier the cell's latent state is with its perturbation's shift than without, nats: low in cells that
        escaped. 0 for controls and for perturbations without an open gate.
    `varm["svae_programs"]`
        What a latent dimension does to each gene: half of the mean of :math:`\log \rho_g(z + e_j) - \log \rho_g(z -
        e_j)` over control cells (a sample of 500; of all cells where there is no control), float32.
    `var["svae_basal_expression"]`
        Mean proportion of each gene in the same cells, per 10,000.
    `uns["svae"]`
        Beside what every fit has: `effects`, a table of perturbations × latent dimensions with the shifts, 0 where the
        gate is closed; `targets`, a table with a row for each perturbation and dimension: `shift` as estimated,
        `standard_error`, `probability` of an open gate in the fit, `evidence` (:math:`n_k \mu_{kj}^2 / 2` nats),
        `q_value` (Benjamini–Hochberg, from a normal null as wide as the split control), `is_target`, `n_cells`;
        `perturbations`, a table with a row for each: `n_cells`, `n_targets`, `effect` (length of the shift that
        counts), `response` (mean over its cells) and `gain` (the same over cells that were held out from training,
        though not from the means that shifts are in the end); `rule`, with `min_shift`,
        `min_share` and the `min_errors` z; `gate_density`, the share of gates that are likelier open after each epoch
        with gates; with a control `null_shifts`, `null_errors` and `null_cells` of its parts. The history is that of
        all epochs.

    Raises
    ------
    ValueError, KeyError, TypeError
        For input that cannot be modelled; `adata` stays as it was.
    FloatingPointError
        When the loss stays infinite or NaN after restarts at lower rates.

    References
    ----------
    Lopez et al. 2023, Learning causal representations of single cells via sparse mechanism shift modeling, CLeaR, PMLR
    213:662, arXiv 2211.03553. The closed expectation over gates, the start by rotation and the rule for open gates are
    this package's own.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate_perturbations(n_perturbations=8, n_latent=4, cells_per_perturbation=40)
    >>> sv.tl.svae(adata, "perturbation", control="control", n_latent=4, max_epochs=5, progress=False)
    >>> adata.uns["svae"]["effects"].shape, adata.obsm["X_svae_basal"].shape == adata.obsm["X_svae"].shape
    ((8, 4), True)
    """
    given = resolve_options(svae, locals())
    _check(given)
    weight = BETA if method == "beta-vae" else 1.0
    given |= {"kl_weight": weight if kl_weight is None else kl_weight, "adam_eps": ADAM_EPS}
    given |= {"inject_covariates": True, "encode_covariates": False, "labels_key": perturbation_key}
    groups = None if null_key is None else group_names(adata, null_key, "null_key")[0]
    given["control"] = _names(control)
    from_table = perturbation_key in adata.obsm and perturbation_key not in adata.obs
    if from_table:
        given["labels_key"] = Keys(key_added).perturbation
    with _column_of(adata, given, from_table=from_table):
        check_perturbation_key(adata, given["labels_key"])
        if from_table and control is None and (adata.obs[given["labels_key"]] == CONTROL).any():
            given["control"] = CONTROL
        call = SparseShifts(given, architecture_of(given), groups)
        around = Around(
            finish=call.finish,
            train=call.train,
            annotate=call.annotate,
            beside=beside(Keys(key_added)),
            shaped_by=_shaping(given),
        )
        return fit_model(svae, given, call.make_spec, around)


def _names(control: Any) -> str | list[str] | None:
    """Names of controls as they are told in `obs`: as texts, whatever labels are."""
    if control is None or isinstance(control, str):
        return control
    several = isinstance(control, Iterable)
    return [str(name) for name in control] or None if several else str(control)


def _shaping(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options that shape the training and are in no specification of the model."""
    numbers = {name: given[name] for name in ("min_shift", "min_share", "gate_price")}
    as_json = {name: None if value is None else float(value) for name, value in numbers.items()}
    return {**{name: given[name] for name in ("method", "init", "control")}, **as_json}


@contextmanager
def _column_of(adata: AnnData, given: Mapping[str, Any], *, from_table: bool) -> Iterator[None]:
    """Write the column of perturbations from a table in `obsm`; take it away where the fit fails, or is of a copy."""
    if not from_table:
        yield
        return
    column, control = given["labels_key"], given["control"]
    entry = adata.uns.get(given["key_added"])
    ours = isinstance(entry, Mapping) and isinstance(entry.get("params"), Mapping)
    if column in adata.obs and not (ours and entry["params"].get("labels_key") == column):
        msg = f"`adata.obs[{column!r}]` exists, but the perturbations would be written there. Pass another `key_added`."
        raise ValueError(msg)
    unperturbed = CONTROL if control is None else control if isinstance(control, str) else control[0]
    names = names_of_table(adata, given["perturbation_key"], unperturbed)
    actualise(adata)
    before = adata.obs
    adata.obs = before.assign(**{column: names})
    try:
        yield
    except BaseException:
        adata.obs = before
        raise
    if given["copy"]:
        adata.obs = before


def _check(given: Mapping[str, Any]) -> None:
    """Raise a ValueError for an option out of range."""
    check_choice(given["method"], METHODS, "method")
    check_choice(given["gates"], ("exact", "gumbel"), "gates")
    check_choice(given["init"], ("rotate", "cold"), "init")
    check_number(given["min_shift"], 0, np.inf, "min_shift")
    check_number(given["min_share"], 0, 1, "min_share")
    if given["gate_price"] is not None:
        check_number(given["gate_price"], 0, np.inf, "gate_price")
