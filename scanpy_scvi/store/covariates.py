"""Columns of `obs` as codes and numbers, matched by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .checks import listed, require_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad


@dataclass(frozen=True)
class ColumnKeys:
    """Which columns of `obs` a model uses."""

    batch_key: str | None = None
    labels_key: str | None = None
    categorical_covariate_keys: tuple[str, ...] = ()
    continuous_covariate_keys: tuple[str, ...] = ()
    size_factor_key: str | None = None

    def names(self) -> set[str]:
        """All of them that are names; what is none is refused where the columns are read."""
        single = (self.batch_key, self.labels_key, self.size_factor_key)
        several = (*self.categorical_covariate_keys, *self.continuous_covariate_keys)
        return {name for name in (*single, *several) if isinstance(name, str)}


@dataclass(frozen=True)
class Categories:
    """Category names of the fit, in the order of their codes, and the scale of continuous covariates."""

    batch: tuple[str, ...] = ("",)
    labels: tuple[str, ...] = ("",)
    categorical: tuple[tuple[str, ...], ...] = ()
    continuous_mean: tuple[float, ...] = ()
    continuous_sd: tuple[float, ...] = ()
    log_size_factor_offset: float = 0.0
    """Added to log size factors to put them on the scale of totals."""
    batch_weights: tuple[float, ...] = field(default=(1.0,))
    """Share of the cells in each batch."""


def column_names(keys: Sequence[str] | None, argument: str) -> tuple[str, ...]:
    """Several column names as a tuple; one bare string is an error, None is none."""
    if keys is None:
        return ()
    if isinstance(keys, str):
        msg = f"`{argument}` is the string {keys!r}, but a list of column names was expected. Pass `[{keys!r}]`."
        raise TypeError(msg)
    if not isinstance(keys, Iterable):
        msg = f"`{argument}` is {keys!r}, but a list of column names was expected."
        raise TypeError(msg)
    return tuple(keys)


def categorical_names(adata: ad.AnnData, key: str, argument: str) -> pd.Categorical:
    """Return a column as a categorical of strings, without unused categories."""
    require_key(key, adata.obs.columns, where="adata.obs", argument=argument)
    column = adata.obs[key]
    if column.isna().any():
        cell = adata.obs_names[int(column.isna().to_numpy().argmax())]
        msg = (
            f"`adata.obs[{key!r}]` has {int(column.isna().sum())} missing values (first: cell {cell!r}), but "
            f"`{argument}` needs a category for every cell. Fill them, for instance with `.fillna('unknown')`, "
            "or remove the cells."
        )
        raise ValueError(msg)
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.cat.remove_unused_categories()
        names = list(dict.fromkeys(str(c) for c in column.cat.categories))
    else:
        names = sorted({str(c) for c in column.unique()})
    return pd.Categorical([str(c) for c in column], categories=names)


def group_names(adata: ad.AnnData, key: str, argument: str) -> tuple[np.ndarray, list[str]]:
    """Codes of a column's groups, -1 where it is missing, and their names as strings, without unused categories."""
    require_key(key, adata.obs.columns, where="adata.obs", argument=argument)
    column = adata.obs[key]
    present = column.notna().to_numpy()
    if isinstance(column.dtype, pd.CategoricalDtype):
        known = column.cat.remove_unused_categories().cat.categories
        names = list(dict.fromkeys(str(c) for c in known))
    else:
        names = sorted({str(c) for c in column[present].unique()})
    if not names:
        msg = f"`{argument}` is {key!r}, but `adata.obs[{key!r}]` names no group for any cell. Pass another column."
        raise ValueError(msg)
    of_cell = [str(c) if p else None for c, p in zip(column, present, strict=True)]
    return pd.Categorical(of_cell, categories=names).codes.astype(np.int64), names


def codes(
    adata: ad.AnnData, key: str | None, argument: str, known: tuple[str, ...] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes of a column and its category names; with `known` names, codes follow them."""
    if key is None:
        return np.zeros(adata.n_obs, np.int64), ("",)
    column = categorical_names(adata, key, argument)
    if known is None:
        return column.codes.astype(np.int64), tuple(column.categories)
    unseen = [c for c in column.categories if c not in known]
    if unseen:
        msg = (
            f"`adata.obs[{key!r}]` has the categories {listed(unseen)}, which the model has not seen; it knows "
            f"{listed(known)}. Remove those cells, or fit a model that includes them."
        )
        raise ValueError(msg)
    return pd.Categorical(column, categories=list(known)).codes.astype(np.int64), known


def covariate_codes(
    adata: ad.AnnData, keys: tuple[str, ...], known: tuple[tuple[str, ...], ...] | None
) -> tuple[np.ndarray, tuple[tuple[str, ...], ...]]:
    """Codes of further categorical covariates, cells x covariates, and their category names."""
    argument = "categorical_covariate_keys"
    columns = [codes(adata, k, argument, known[i] if known else None) for i, k in enumerate(keys)]
    for key, (_, names) in zip(keys, columns, strict=True):
        if len(names) < 2:
            msg = (
                f"`adata.obs[{key!r}]` has the single category {names[0]!r}, but a covariate in `{argument}` needs at "
                "least two. Leave it out."
            )
            raise ValueError(msg)
    table = np.stack([c for c, _ in columns], axis=1) if columns else np.zeros((adata.n_obs, 0), np.int64)
    return table, tuple(names for _, names in columns)


def continuous_values(adata: ad.AnnData, keys: tuple[str, ...], *, fitting: bool = True) -> np.ndarray:
    """Values of continuous covariates, cells x covariates, float64; those of a new fit must vary."""
    argument = "continuous_covariate_keys"
    columns = [numeric_column(adata, key, argument) for key in keys]
    for key, values in zip(keys, columns, strict=True):
        if fitting and np.ptp(values) == 0:
            msg = (
                f"`adata.obs[{key!r}]` is {values[0]:.6g} in every cell, but a covariate in `{argument}` must vary. "
                "Leave it out."
            )
            raise ValueError(msg)
    return np.stack(columns, axis=1) if columns else np.zeros((adata.n_obs, 0))


def numeric_column(adata: ad.AnnData, key: str, argument: str) -> np.ndarray:
    """Return a numeric column of `obs` as float64; every value finite."""
    require_key(key, adata.obs.columns, where="adata.obs", argument=argument)
    column = adata.obs[key]
    if not pd.api.types.is_numeric_dtype(column):
        msg = (
            f"`adata.obs[{key!r}]` has dtype {column.dtype}, but `{argument}` expects numbers. Convert it, or pass it "
            "with `categorical_covariate_keys`."
        )
        raise TypeError(msg)
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    bad = ~np.isfinite(values)
    if bad.any():
        cell = adata.obs_names[int(bad.argmax())]
        msg = (
            f"`adata.obs[{key!r}]` has {int(bad.sum())} NaN or infinite values (first: cell {cell!r}), "
            f"but `{argument}` needs a number for every cell. Fill them or remove the cells."
        )
        raise ValueError(msg)
    return values


def log_size_factors(adata: ad.AnnData, key: str) -> np.ndarray:
    """Log of the size factors, which must be positive."""
    values = numeric_column(adata, key, "size_factor_key")
    bad = values <= 0
    if bad.any():
        cell = adata.obs_names[int(bad.argmax())]
        msg = (
            f"`adata.obs[{key!r}]` has {int(bad.sum())} values that are zero or negative (first: cell {cell!r}), but "
            "size factors must be positive. Remove those cells or compute the size factors again."
        )
        raise ValueError(msg)
    return np.log(values)
