"""The parts of `uns[key]` as typed data, checked before anything is done with them.

A file may come from anywhere. Nothing here runs code from it, and nothing takes more memory than what is stored: sizes
that a specification claims are compared with the stored arrays before a model is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..modules.spec import ModelSpec
from .checks import listed, short
from .covariates import Categories, ColumnKeys
from .keys import ABSENT
from .typed import array, at, item, mapping, names, numbers, real, text, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..modules.cells import Dimensions

SPEC_CHARACTERS = 2**16
"""Longest text of a specification, but for what it says of each batch."""
SPEC_PER_BATCH = 64
COLUMNS = ("batch_key", "labels_key", "size_factor_key")
SEVERAL_COLUMNS = ("categorical_covariate_keys", "continuous_covariate_keys")
VARIANCES = ("prior_var", "running_var")
"""Weights that a root is taken of."""


class Entry(NamedTuple):
    """What a model is rebuilt from."""

    params: Mapping[str, Any]
    columns: ColumnKeys
    categories: Categories
    var_names: tuple[str, ...]
    absent_genes: frozenset[str]
    """Genes that need not be there: cells that were mapped to a reference lacked them."""
    spec: ModelSpec
    state: Mapping[str, Any]


def place(key: str) -> str:
    """Where a fit lies, for messages."""
    return at("adata.uns", key)


def read_entry(stored: Mapping[str, Any], key: str) -> Entry:
    """Check everything but the weights' values, which want the model's shapes: see :func:`weights`."""
    where = place(key)
    lacking = {"params", "categories", "var_names"} - set(stored)
    if lacking:
        msg = f"`{where}` lacks {listed(sorted(lacking))}, so the model cannot be rebuilt. Fit again."
        raise ValueError(msg)
    params = read_params(stored, key)
    columns = read_columns(params, at(where, "params"))
    categories = read_categories(stored["categories"], at(where, "categories"))
    var_names = names(stored["var_names"], at(where, "var_names"))
    spec = read_spec(stored, key, len(categories.batch))
    _check_sizes(spec.dims, categories, columns, var_names, where)
    if (spec.library.name == "size_factor") != (columns.size_factor_key is not None):
        msg = f"`{at(where, 'params')}` and the spec beside it disagree about size factors. The entry is damaged."
        raise ValueError(msg)
    absent = frozenset(names(stored.get(ABSENT, ()), at(where, ABSENT)))
    return Entry(params, columns, categories, var_names, absent, spec, mapping(stored["state"], at(where, "state")))


def read_params(stored: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Options of the call; those that are read later are checked."""
    where = at(place(key), "params")
    params = dict(mapping(item(stored, "params", place(key)), where))
    params["batch_size"] = whole(item(params, "batch_size", where), at(where, "batch_size"), 1, 2**31 - 1)
    for name in (*COLUMNS, "layer"):
        if params.get(name) is not None:
            params[name] = text(params[name], at(where, name))
    for name in SEVERAL_COLUMNS:
        params[name] = names(params.get(name, ()), at(where, name))
    return params


def read_columns(params: Mapping[str, Any], where: str = "params") -> ColumnKeys:
    """Return the columns that a fit used; options left at None were not stored."""
    one = {name: None if params.get(name) is None else text(params[name], at(where, name)) for name in COLUMNS}
    several = {name: names(params.get(name, ()), at(where, name)) for name in SEVERAL_COLUMNS}
    return ColumnKeys(**one, **several)  # type: ignore[arg-type]


def read_categories(stored: Any, where: str = "categories") -> Categories:
    """Names of the categories, and the scales of covariates."""
    entry = mapping(stored, where)
    categorical = mapping(entry.get("categorical", {}), at(where, "categorical"))
    batch = names(item(entry, "batch", where), at(where, "batch"))
    mean = numbers(item(entry, "continuous_mean", where), at(where, "continuous_mean"))
    sd = numbers(item(entry, "continuous_sd", where), at(where, "continuous_sd"), n=len(mean), low=5e-324)
    weights = numbers(item(entry, "batch_weights", where), at(where, "batch_weights"), n=len(batch), low=0)
    if not abs(weights.sum() - 1) < 1e-3:
        msg = f"`{at(where, 'batch_weights')}` adds up to {weights.sum():g}, but shares add up to 1. It is damaged."
        raise ValueError(msg)
    return Categories(
        batch=batch,
        labels=names(item(entry, "labels", where), at(where, "labels")),
        categorical=tuple(
            names(item(categorical, str(i), at(where, "categorical")), at(where, "categorical", str(i)))
            for i in range(len(categorical))
        ),
        continuous_mean=tuple(mean.tolist()),
        continuous_sd=tuple(sd.tolist()),
        log_size_factor_offset=real(item(entry, "log_size_factor_offset", where), at(where, "log_size_factor_offset")),
        batch_weights=tuple(weights.tolist()),
    )


def read_spec(stored: Mapping[str, Any], key: str, n_batches: int) -> ModelSpec:
    """Return the specification of the model."""
    where = at(place(key), "spec")
    written = text(item(stored, "spec", place(key)), where, most=SPEC_CHARACTERS + SPEC_PER_BATCH * n_batches)
    try:
        return ModelSpec.from_json(written)
    except (TypeError, ValueError) as error:
        raise unreadable(key, error) from error


def unreadable(key: str, error: Exception) -> ValueError:
    """What is said of a specification that makes no model."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ValueError(
        f"The spec in `{place(key)}` cannot be read ({short(reason, quoted=False, most=200)}). It is damaged or from "
        f"another version of scanpy-scvi: see `{at(place(key), 'versions')}`, or fit again."
    )


def _check_sizes(
    dims: Dimensions, categories: Categories, columns: ColumnKeys, var_names: tuple[str, ...], where: str
) -> None:
    """Raise a ValueError where the specification's sizes are not those of what lies beside it."""
    found = {
        "n_genes": (dims.n_genes, len(var_names), "var_names"),
        "n_batches": (dims.n_batches, len(categories.batch), "batches"),
        "n_labels": (dims.n_labels, len(categories.labels), "labels"),
        "n_categories": (dims.n_categories, tuple(map(len, categories.categorical)), "further categories"),
        "n_continuous": (dims.n_continuous, len(categories.continuous_mean), "continuous covariates"),
    }
    for name, (claimed, there, what) in found.items():
        if claimed != there:
            msg = f"The spec in `{where}` has {name} {claimed}, but {there} {what} are stored. The entry is damaged."
            raise ValueError(msg)
    used = {
        "batch_key": (columns.batch_key is None, dims.n_batches == 1),
        "labels_key": (columns.labels_key is None, dims.n_labels == 1),
    }
    for name, (missing, single) in used.items():
        if missing and not single:
            msg = f"`{at(where, 'params')}` lacks {name!r}, but the model was fitted with it. The entry is damaged."
            raise ValueError(msg)
    several = {
        "categorical_covariate_keys": (columns.categorical_covariate_keys, len(dims.n_categories)),
        "continuous_covariate_keys": (columns.continuous_covariate_keys, dims.n_continuous),
    }
    for name, (given, n) in several.items():
        if len(given) != n:
            msg = f"`{at(where, 'params', name)}` has {len(given)} names, but the model {n}. The entry is damaged."
            raise ValueError(msg)


def weights(
    stored: Mapping[str, Any], shapes: Mapping[str, tuple[tuple[int, ...], bool]], key: str
) -> dict[str, np.ndarray]:
    """Weights as arrays of the shapes that the model needs; nothing is copied.

    Parameters
    ----------
    stored
        Arrays under their names.
    shapes
        Shape of each, and whether it is of whole numbers.
    key
        Name of the fit, for messages.
    """
    where = at(place(key), "state")
    differ = set(shapes) ^ set(stored)
    if differ:
        msg = f"The weights in `{where}` do not fit the stored spec: {listed(sorted(differ), most=5)} differ."
        raise ValueError(msg)
    found = {}
    for name, (shape, is_whole) in shapes.items():
        values = array(stored[name], at(where, name), kinds="iu" if is_whole else "f")
        if values.shape != shape:
            msg = f"The stored weights {name!r} have shape {values.shape}, but the spec needs {shape}."
            raise ValueError(msg)
        found[name] = values
    return found


def check_weights(values: np.ndarray, name: str, key: str) -> None:
    """Raise a ValueError for weights that no fit ends with; `values` are as the model has them."""
    where = at(place(key), "state", name)
    if not np.isfinite(values).all():
        msg = f"`{where}` has NaN or infinite values, so the model can say nothing. The entry is damaged. Fit again."
        raise ValueError(msg)
    if name.rpartition(".")[2] in VARIANCES and (values < 0).any():
        msg = f"`{where}` has negative values, but holds variances. The entry is damaged. Fit again."
        raise ValueError(msg)
