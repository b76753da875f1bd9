"""What `setup_anndata` of scvi-tools notes of the data, written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np

from ..identity import weights_id
from ..uns import from_uns_strings

if TYPE_CHECKING:
    from collections.abc import Mapping

    import anndata as ad

    from ..load import Fitted

VERSION = "1.4.2"
"""Version of scvi-tools whose files these are."""


def model_attributes(adata: ad.AnnData, fitted: Fitted, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of a trained `SCVI`, for the fit stored as `entry`."""
    held_out = adata.obs_names.isin(from_uns_strings(entry.get("validation_names", ())))
    return {
        "registry_": _registry(adata, fitted, entry),
        "is_trained_": True,
        "history_": {},
        "train_indices_": np.flatnonzero(~held_out),
        "validation_indices_": np.flatnonzero(held_out),
        "test_indices_": np.zeros(0, np.int64),
        "get_normalized_function_name_": "get_normalized_expression",
        "run_id_": "",
        "run_name_": "",
    }


def _registry(adata: ad.AnnData, fitted: Fitted, entry: Mapping[str, Any]) -> dict[str, Any]:
    columns, layer = fitted.columns, fitted.params.get("layer")
    categorical, continuous = columns.categorical_covariate_keys, columns.continuous_covariate_keys
    return {
        "scvi_version": VERSION,
        "model_name": "SCVI",
        "setup_method_name": "setup_anndata",
        "setup_args": {
            "layer": layer,
            "batch_key": columns.batch_key,
            "labels_key": columns.labels_key,
            "size_factor_key": None,
            "categorical_covariate_keys": list(categorical) or None,
            "continuous_covariate_keys": list(continuous) or None,
        },
        "field_registries": {
            "X": _counts(adata, fitted, layer),
            "batch": _column(adata, "batch", columns.batch_key, fitted.categories.batch),
            "labels": _column(adata, "labels", columns.labels_key, fitted.categories.labels),
            "size_factor": _field({}, {}, {}),
            "extra_categorical_covs": _categorical(adata, categorical, fitted.categories.categorical),
            "extra_continuous_covs": _continuous(continuous),
        },
        "_scvi_uuid": str(UUID(weights_id(entry))),
    }


def _field(data: dict[str, Any], state: dict[str, Any], summary: dict[str, Any]) -> dict[str, Any]:
    return {"data_registry": data, "state_registry": state, "summary_stats": summary}


def _counts(adata: ad.AnnData, fitted: Fitted, layer: str | None) -> dict[str, Any]:
    n_genes = len(fitted.var_names)
    names = np.array(fitted.var_names, dtype=object)
    return _field(
        {"attr_name": "X" if layer is None else "layers", "attr_key": layer},
        {"n_obs": adata.n_obs, "n_vars": n_genes, "column_names": names},
        {"n_vars": n_genes, "n_cells": adata.n_obs},
    )


def _column(adata: ad.AnnData, name: str, key: str | None, categories: tuple[str, ...]) -> dict[str, Any]:
    """A categorical column; where there is none, scvi-tools makes one with the single category 0."""
    own = f"_scvi_{name}"
    mapping = np.zeros(1, np.int64) if key is None else _values(adata, key, categories)
    return _field(
        {"attr_name": "obs", "attr_key": own},
        {"categorical_mapping": mapping, "original_key": key or own},
        {f"n_{name}": len(mapping)},
    )


def _categorical(adata: ad.AnnData, keys: tuple[str, ...], categories: tuple[tuple[str, ...], ...]) -> dict[str, Any]:
    summary = {"n_extra_categorical_covs": len(keys)}
    if not keys:
        return _field({}, {}, summary)
    mappings = {key: _values(adata, key, names) for key, names in zip(keys, categories, strict=True)}
    state = {
        "mappings": mappings,
        "field_keys": list(keys),
        "n_cats_per_key": [len(mapping) for mapping in mappings.values()],
    }
    return _field({"attr_name": "obsm", "attr_key": "_scvi_extra_categorical_covs"}, state, summary)


def _continuous(keys: tuple[str, ...]) -> dict[str, Any]:
    summary = {"n_extra_continuous_covs": len(keys)}
    if not keys:
        return _field({}, {}, summary)
    state = {"columns": np.array(keys, dtype=object)}
    return _field({"attr_name": "obsm", "attr_key": "_scvi_extra_continuous_covs"}, state, summary)


def _values(adata: ad.AnnData, key: str, categories: tuple[str, ...]) -> np.ndarray:
    """Categories as the column has them: scvi-tools matches values, and tells 1 from "1"."""
    present = {str(value): value for value in adata.obs[key].unique()}
    kinds = {type(value) for value in present.values()}
    make = kinds.pop() if len(kinds) == 1 else str
    array = np.array([present[name] if name in present else make(name) for name in categories])
    return array.astype(object) if array.dtype.kind not in "biuf" else array
