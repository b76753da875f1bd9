"""From the options of a public function to a model specification and training settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..modules.libraries.lognormal import library_prior
from ..modules.likelihoods import COUNT_LIKELIHOODS, DispersionKind
from ..modules.spec import ModelSpec, Part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..modules.cells import Dimensions
    from ..modules.mlp import Norm
    from ..training.batches import CellTable
    from ..training.config import TrainingConfig

LibraryKind = Literal["observed", "latent"]
NO_DISPERSION = {"poisson": "a Poisson", "gaussian": "a normal density", "mse": "a squared error"}
DISPERSIONS = ("gene", "gene-batch", "gene-label", "gene-cell")


@dataclass(frozen=True)
class Architecture:
    """The options that shape the model."""

    likelihood: str
    dispersion: DispersionKind
    library: LibraryKind
    n_latent: int
    n_hidden: int
    n_layers: int
    dropout_rate: float
    norm: Norm
    inject_covariates: bool
    encode_covariates: bool
    output_covariates: bool = True
    """Whether covariates that are injected everywhere enter the decoder's output layer too."""
    norm_momentum: float = 0.1
    """Weight of the newest minibatch in the running statistics of batch normalisation."""


def architecture_of(
    given: Mapping[str, Any], *, likelihoods: tuple[str, ...] = COUNT_LIKELIHOODS, least_layers: int = 1
) -> Architecture:
    """Pick the options that shape the model out of all that were given, and check what can be checked without data."""
    options = Architecture(**{name: given[name] for name in Architecture.__dataclass_fields__ if name in given})
    check_architecture(options, likelihoods, least_layers)
    return options


def check_choice(value: Any, choices: tuple[Any, ...], argument: str) -> None:
    """Raise a ValueError that lists the choices."""
    if value not in choices:
        msg = f"`{argument}` is {value!r}, but one of {', '.join(map(repr, choices))} was expected."
        raise ValueError(msg)


def check_number(value: float, low: float, high: float, argument: str, *, whole: bool = False) -> None:
    """Raise a ValueError unless low <= value <= high."""
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or np.isinf(value) or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        limits = f"of at least {low:g}" if np.isinf(high) else f"from {low:g} to {high:g}"
        msg = f"`{argument}` is {value!r}, but {kind} {limits} was expected."
        raise ValueError(msg)


def check_architecture(options: Architecture, likelihoods: tuple[str, ...], least_layers: int) -> None:
    """Check what can be checked without data."""
    check_choice(options.likelihood, likelihoods, "likelihood")
    check_choice(options.dispersion, DISPERSIONS, "dispersion")
    check_choice(options.library, ("observed", "latent"), "library")
    check_choice(options.norm, ("batch", "layer", "none"), "norm")
    for argument, least in (("n_latent", 1), ("n_hidden", 1), ("n_layers", least_layers)):
        check_number(getattr(options, argument), least, np.inf, argument, whole=True)
    check_number(options.dropout_rate, 0, 0.95, "dropout_rate")
    if options.likelihood in NO_DISPERSION and options.dispersion != "gene":
        what = NO_DISPERSION[options.likelihood]
        msg = f"`dispersion` is {options.dispersion!r}, but {what} has no dispersion. Use `likelihood='nb'`."
        raise ValueError(msg)


def check_against_data(options: Architecture, dims: Dimensions, batch_key: str | None, labels_key: str | None) -> None:
    """Check the options that depend on the data."""
    if options.n_latent > dims.n_genes:
        msg = (
            f"`n_latent` is {options.n_latent}, but only {dims.n_genes} genes are modelled, and a latent space has no "
            f"use for more dimensions. Pass `n_latent` of at most {dims.n_genes}, or more genes."
        )
        raise ValueError(msg)
    for dispersion, key, argument in (("gene-batch", batch_key, "batch_key"), ("gene-label", labels_key, "labels_key")):
        if options.dispersion == dispersion and key is None:
            msg = (
                f"`dispersion={dispersion!r}` needs `{argument}`, which was not given. Pass it, or another dispersion."
            )
            raise ValueError(msg)


def model_spec(options: Architecture, dims: Dimensions, library: Part) -> ModelSpec:
    """Build the specification of scVI: which parts, with which options."""
    network: dict[str, Any] = {"n_hidden": options.n_hidden, "n_layers": options.n_layers, "norm": options.norm}
    network |= {
        "norm_momentum": options.norm_momentum,
        "n_latent": options.n_latent,
        "inject_covariates": options.inject_covariates,
    }
    likelihood = {} if options.likelihood == "poisson" else {"dispersion": options.dispersion}
    decoder = {**network, "output_covariates": options.output_covariates and options.inject_covariates}
    encoder = {**network, "dropout_rate": options.dropout_rate, "encode_covariates": options.encode_covariates}
    return ModelSpec(
        dims=dims,
        encoder=Part("mlp", encoder),
        library=library,
        decoder=Part("mlp", decoder),
        likelihood=Part(options.likelihood, likelihood),
        prior=Part("normal"),
    )


def library_part(options: Architecture, table: CellTable, *, size_factors: bool) -> Part:
    """Build the library's specification; the prior of a latent one is read off the data, per batch."""
    if size_factors:
        if options.library == "latent":
            msg = "`library='latent'` and `size_factor_key` exclude each other. Pass one of them."
            raise ValueError(msg)
        return Part("size_factor")
    if options.library == "observed":
        return Part("observed")
    mean, var = library_prior(table.log_total, table.batch)
    network: dict[str, Any] = {"n_hidden": options.n_hidden, "dropout_rate": options.dropout_rate}
    network |= {"norm": options.norm, "norm_momentum": options.norm_momentum}
    return Part("latent", {"prior_mean": mean, "prior_var": var, **network})


def check_training(config: TrainingConfig) -> None:
    """Check the training settings."""
    check_number(config.random_state, 0, 2**63 - 1, "random_state", whole=True)
    check_number(config.max_epochs, 1, np.inf, "max_epochs", whole=True)
    check_number(config.batch_size, 2, np.inf, "batch_size", whole=True)
    check_number(config.learning_rate, 1e-12, 10, "learning_rate")
    check_number(config.weight_decay, 0, np.inf, "weight_decay")
    check_number(config.kl_weight, 0, np.inf, "kl_weight")
    check_number(config.kl_warmup, 0, 1, "kl_warmup")
    check_number(config.validation_size, 0, 0.9, "validation_size")
    if config.early_stopping and config.validation_size == 0:
        msg = (
            "`early_stopping=True` needs held-out cells, but `validation_size` is 0. Hold out some, or pass "
            "`early_stopping=False`."
        )
        raise ValueError(msg)
