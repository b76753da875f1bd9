"""What `setup_anndata` of scvi-tools noted of the data, read: layer, columns, categories by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ...modules.cells import Dimensions
from ..checks import listed
from ..covariates import Categories, ColumnKeys
from .values import as_list, as_mapping, as_names

if TYPE_CHECKING:
    from collections.abc import Mapping


class Setup(NamedTuple):
    """The data that a model of scvi-tools was set up for."""

    layer: str | None
    columns: ColumnKeys
    categories: Categories
    version: str

    def dims(self, n_genes: int) -> Dimensions:
        """Sizes of the model."""
        return Dimensions(
            n_genes=n_genes,
            n_batches=len(self.categories.batch),
            n_labels=len(self.categories.labels),
            n_categories=tuple(len(names) for names in self.categories.categorical),
            n_continuous=len(self.columns.continuous_covariate_keys),
        )


def read_setup(stored: Any) -> Setup:
    """Read the registry of a file.

    Raises
    ------
    ValueError
        For the registry of another model than SCVI, or a setup that our parts cannot express, with the reason.
    """
    registry = as_mapping(stored, "registry_")
    _check_model(registry)
    args = as_mapping(registry.get("setup_args"), "setup_args")
    if args.get("size_factor_key") is not None:
        msg = (
            "it was set up with `size_factor_key`, with which the decoder of scvi-tools ends in a softplus; decoders "
            "here end in a softmax"
        )
        raise ValueError(msg)
    fields = as_mapping(registry.get("field_registries"), "field_registries")
    covariates = _state(fields, "extra_categorical_covs")
    categorical_keys = as_names(args.get("categorical_covariate_keys"), "categorical_covariate_keys")
    mappings = as_mapping(covariates.get("mappings", {}), "mappings")
    names = {key: _categories(mappings.get(key), f"the categories of {key!r}") for key in categorical_keys}
    kept = tuple(key for key in categorical_keys if len(names[key]) > 1)  # one category alone has no weights
    columns = ColumnKeys(
        batch_key=_key(args, "batch_key"),
        labels_key=_key(args, "labels_key"),
        categorical_covariate_keys=kept,
        continuous_covariate_keys=as_names(args.get("continuous_covariate_keys"), "continuous_covariate_keys"),
    )
    n_continuous = len(columns.continuous_covariate_keys)
    categories = Categories(
        batch=("",) if columns.batch_key is None else _column(fields, "batch"),
        labels=("",) if columns.labels_key is None else _column(fields, "labels"),
        categorical=tuple(names[key] for key in kept),
        continuous_mean=(0.0,) * n_continuous,  # scvi-tools takes them as they are
        continuous_sd=(1.0,) * n_continuous,
    )
    return Setup(_key(args, "layer"), columns, categories, str(registry.get("scvi_version"))[:40])


def _check_model(registry: Mapping[str, Any]) -> None:
    """Raise a ValueError for the registry of another class, or of another kind of data."""
    model = registry.get("model_name")
    if model != "SCVI":
        found = repr(model[:40]) if isinstance(model, str) else "of no named class"
        msg = f"the model is {found}, but only 'SCVI' can be read: other classes have parts that there are none of here"
        raise ValueError(msg)
    if registry.get("setup_method_name", "setup_anndata") != "setup_anndata":
        msg = "it was not set up with `setup_anndata`, but with other data than an AnnData"
        raise ValueError(msg)


def _key(args: Mapping[str, Any], name: str) -> str | None:
    key = args.get(name)
    if key is not None and not isinstance(key, str):
        msg = f"its {name} is not a name"
        raise ValueError(msg)
    return key


def _state(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    field = as_mapping(fields.get(name, {}), name)
    return as_mapping(field.get("state_registry", {}), name)


def _column(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return _categories(_state(fields, name).get("categorical_mapping"), f"the categories of {name}")


def _categories(value: Any, what: str) -> tuple[str, ...]:
    names = as_names(as_list(value, what), what)
    if not names or len(set(names)) < len(names):
        msg = f"{what} are {listed(names)}, but different names were expected"
        raise ValueError(msg)
    return names
