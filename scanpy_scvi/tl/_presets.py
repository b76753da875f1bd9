"""Named sets of options."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from ._assemble import check_choice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PRESETS: dict[str, dict[str, Any]] = {
    # scvi-tools 1.4.2: `SCVI(adata).train()`
    "scvi-tools": {
        "likelihood": "zinb",
        "n_latent": 10,
        "n_hidden": 128,
        "n_layers": 1,
        "dropout_rate": 0.1,
        "norm": "batch",
        "norm_momentum": 0.01,
        "encode_covariates": False,
        "output_covariates": False,
        "batch_size": 128,
        "learning_rate": 1e-3,
        "adam_eps": 0.01,
        "weight_decay": 1e-6,
        "averaging": 0.0,
        "warmup_steps": 0,
        "early_stopping": False,
        "keep_best": False,
        "start_from_data": False,
        "settle_dispersion": False,
    },
}

NOT_RECORDED = {"adata", "copy", "progress", "mask_var", "normalized", "gene_sets", "checkpoint", "out"}


def resolve_options(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a call with those of its preset; what was set to something else than its default wins."""
    parameters = inspect.signature(function).parameters
    options = {name: _plain(given[name]) for name in parameters}
    preset = options.get("preset")
    if preset is None:
        return options
    check_choice(preset, tuple(PRESETS), "preset")
    for name, value in PRESETS[preset].items():
        if name not in options or is_default(function, name, options[name]):
            options[name] = value
    return options


def is_default(function: Callable[..., Any], name: str, value: Any) -> bool:
    """Whether an option has the default of the function."""
    return bool(value == inspect.signature(function).parameters[name].default)


def _plain(value: Any) -> Any:
    """Python's own number for a NumPy scalar."""
    return value.item() if isinstance(value, np.generic) else value


def recorded(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options to keep with the results."""
    return {name: options[name] for name in inspect.signature(function).parameters if name not in NOT_RECORDED}
