"""What every model function does with its options around its model: check, fit, write, rank."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..modules.spec import ModelSpec
from ..store.covariates import ColumnKeys, column_names
from ..store.keys import Keys
from ..store.write import drop_model
from ..training.batches import smallest_minibatch
from ..training.config import TrainingConfig, default_max_epochs
from ._assemble import check_choice, check_training
from ._fit import Around, FitOptions, fit_and_write
from ._penalties import penalty_parts, with_penalties
from ._presets import is_default, recorded
from ._rank_genes_groups import check_ranking, rank_genes_groups
from ._target import target_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anndata import AnnData

    from ..store.read import Data


def fit_model(
    function: Callable[..., Any],
    given: Mapping[str, Any],
    make_spec: Callable[[Data], ModelSpec | Sequence[ModelSpec]],
    around: Around = Around(),  # noqa: B008  # immutable
) -> AnnData | None:
    """Fit the model of `make_spec` with the options of a call, and write all results.

    Parameters
    ----------
    function
        The public function that was called; its name names the model in messages.
    given
        All its arguments by name, presets resolved. What a function has no argument for keeps its default.
    make_spec
        The model for the data that were read; or several that differ in their priors, of which the best by the bound of
        held-out cells is kept.
    around
        What it does before and after its training.
    """
    columns = column_keys(given)
    asked = penalty_parts(given.get("penalties", ()))
    given = {**given, "penalties": {part.name: part.options for part in asked} or None}
    check_choice(given["on_interrupt"], ("raise", "keep"), "on_interrupt")
    check_choice(given["store_model"], (True, False), "store_model")
    check_choice(given["normalized"], (True, False, "auto"), "normalized")

    def make_config(data: Data) -> TrainingConfig:
        return training_config(function, given, data.table.n_cells)

    def make_priced(data: Data) -> list[ModelSpec]:
        made = make_spec(data)
        specs = [made] if isinstance(made, ModelSpec) else list(made)
        if not asked and not any(spec.penalties for spec in specs):
            return specs
        config = make_config(data)
        least = smallest_minibatch(data.table.n_cells, config.batch_size, config.validation_size)
        return [with_penalties(spec, asked, least) for spec in specs]

    options = FitOptions(**{name: given[name] for name in FitOptions.__dataclass_fields__ if name in given})
    params = recorded(function, given)
    if columns.labels_key is not None:
        params = {**params, "labels_key": columns.labels_key}  # under another name, perhaps, among the arguments
    with target_of(given) as target:
        if given.get("groupby") is not None:
            check_ranking(target.adata, given["groupby"], given["key_added"])
        checkpoints = fit_and_write(
            target.adata,
            function.__name__,
            columns,
            options,
            make_spec=make_priced,
            make_config=make_config,
            params=params,
            around=around,
            new_layer=target.new_layer,
        )
        _after_the_fit(target.adata, given)
    if checkpoints is not None and target.adata.uns[given["key_added"]]["convergence"]["verdict"] != "interrupted":
        checkpoints.remove()
    return target.adata if given["copy"] else None


def _after_the_fit(adata: AnnData, given: Mapping[str, Any]) -> None:
    """Rank genes and drop the model, where that was asked for."""
    if given.get("groupby") is not None:
        seed, device = given["random_state"], given["device"]
        rank_genes_groups(adata, given["groupby"], key=given["key_added"], random_state=seed, device=device)
    if not given["store_model"]:
        drop_model(adata, Keys(given["key_added"]))


def column_keys(given: Mapping[str, Any]) -> ColumnKeys:
    """Return the columns of `obs` that a call names."""
    several = {
        name: column_names(given.get(name, ()), name)
        for name in ("categorical_covariate_keys", "continuous_covariate_keys")
    }
    single = {name: given.get(name) for name in ("batch_key", "labels_key", "size_factor_key")}
    return ColumnKeys(**single, **several)  # type: ignore[arg-type]  # mypy does not follow the names


def training_config(function: Callable[..., Any], given: Mapping[str, Any], n_cells: int) -> TrainingConfig:
    """Return the settings of a fit to `n_cells` cells, checked."""
    fields = {name: given[name] for name in TrainingConfig.__dataclass_fields__ if name in given}
    preset, max_epochs = given.get("preset"), given["max_epochs"]
    config = TrainingConfig(**fields | {"max_epochs": 1 if max_epochs is None else max_epochs})
    check_training(config)
    if max_epochs is None:
        config = replace(config, max_epochs=default_max_epochs(n_cells, config.batch_size, preset))
    if preset == "scvi-tools" and is_default(function, "kl_warmup", config.kl_warmup):
        # its warm-up takes 400 epochs, however many the fit has
        config = replace(config, kl_warmup=400 / config.max_epochs)
    return config
