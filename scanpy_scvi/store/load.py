"""AnnData -> a fitted model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..modules.spec import ModelSpec
from ..training.random import seeded
from .checks import check_unique_genes, listed
from .covariates import Categories, ColumnKeys
from .keys import SCHEMA, Keys
from .read import read_like
from .representations import find_representations, stored_representations, without_representations
from .uns import from_uns_strings

if TYPE_CHECKING:
    import anndata as ad

    from ..modules.vae import VAE
    from ..training.batches import CellTable


@dataclass(frozen=True)
class Fitted:
    """A fitted model with all that is needed to apply it."""

    model: VAE
    spec: ModelSpec
    keys: Keys
    params: Mapping[str, Any]
    columns: ColumnKeys
    categories: Categories
    gene_positions: np.ndarray
    """Columns of the model's genes in the AnnData, in the model's order."""
    var_names: tuple[str, ...]

    def on(self, adata: ad.AnnData) -> Fitted:
        """Return the same model with the genes found in another AnnData, by name.

        A model without an encoder finds latent states for these cells, which takes an optimisation; whatever lies in
        `obsm` may be of another model.
        """
        other = replace(self, gene_positions=_match_genes(adata, self.var_names))
        return other if self.model.encoder.representations() is None else other._for_cells_of(adata, None)

    def read(self, adata: ad.AnnData) -> CellTable:
        """Cells of an AnnData as the model wants them; for a model without an encoder, those that it was loaded for."""
        table = self.model.encoder.representations()
        if table is not None and len(table) != adata.n_obs:
            msg = (
                f"The fit has no encoder, and was loaded for {len(table)} cells, but `adata` has {adata.n_obs}. Take "
                "`fitted.on(adata)`, which finds their latent states."
            )
            raise ValueError(msg)
        return self._read(adata)

    def _read(self, adata: ad.AnnData) -> CellTable:
        return read_like(adata, self.columns, self.categories, self.gene_positions, self.params.get("layer"))

    def _for_cells_of(self, adata: ad.AnnData, z: np.ndarray | None) -> Fitted:
        """The same model with the latent states `z` of these cells; None finds them."""
        if z is None:
            z = find_representations(self.model, self.spec, self._read(adata), self.params)
        spec = self.spec.for_cells(adata.n_obs)
        with seeded(0):
            model = spec.build().float()
        model.load_state_dict(without_representations(self.model), strict=False)
        table = model.encoder.representations()
        if table is not None:
            table.data = torch.tensor(z)
        return replace(self, spec=spec, model=model.eval())


def load(adata: ad.AnnData, key: str) -> Fitted:
    """Rebuild the model stored under `uns[key]`; genes are matched by name.

    The latent states of a model without an encoder are those in `obsm`; where there are none, they are found.

    Raises
    ------
    KeyError
        Where no fit is stored under the key, or genes of the model are missing.
    ValueError
        Where what is stored is not a model that this version can read.
    """
    entry = find_entry(adata, key)
    spec, model = _build(entry, key)
    model.load_state_dict(_state(model, entry["state"]), strict=False)
    params = entry["params"]
    var_names = from_uns_strings(entry["var_names"])
    fitted = Fitted(
        model=model.eval(),
        spec=spec,
        keys=Keys(key),
        params=params,
        columns=columns_from_params(params),
        categories=_categories(entry["categories"]),
        gene_positions=_match_genes(adata, var_names),
        var_names=var_names,
    )
    table = model.encoder.representations()
    if table is None:
        return fitted
    return fitted._for_cells_of(adata, stored_representations(adata, fitted.keys.latent, table.shape[1]))


def _build(entry: Mapping[str, Any], key: str) -> tuple[ModelSpec, VAE]:
    """Model of the stored specification, with fresh weights."""
    try:
        spec = ModelSpec.from_json(str(entry["spec"]))
        with seeded(0):
            return spec, spec.build().float()
    except (KeyError, TypeError, ValueError) as error:
        msg = (
            f"The spec in `adata.uns[{key!r}]` cannot be read ({error}). It is damaged or from another version of "
            f"scanpy-scvi: see `adata.uns[{key!r}]['versions']`, or fit again."
        )
        raise ValueError(msg) from error


def find_entry(adata: ad.AnnData, key: str) -> Mapping[str, Any]:
    """`uns[key]` of a fit."""
    fits = [k for k, v in adata.uns.items() if isinstance(v, Mapping) and {"spec", "state", "schema"} <= set(v)]
    if key not in fits:
        have = f"Fits are stored under {listed(fits)}: pass `key=`." if fits else "Run `scanpy_scvi.tl.scvi` first."
        msg = f"`adata.uns[{key!r}]` holds no fitted model. {have}"
        raise KeyError(msg)
    entry = adata.uns[key]
    if int(entry["schema"]) > SCHEMA:
        msg = (
            f"`adata.uns[{key!r}]` has schema {int(entry['schema'])}, but this version reads up to {SCHEMA}. "
            "Install a newer scanpy-scvi."
        )
        raise ValueError(msg)
    lacking = {"params", "categories", "var_names"} - set(entry)
    if lacking:
        msg = f"`adata.uns[{key!r}]` lacks {listed(sorted(lacking))}, so the model cannot be rebuilt. Fit again."
        raise ValueError(msg)
    return entry


def _state(model: VAE, stored: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Stored weights as tensors of the model's own shapes and types."""
    expected = without_representations(model)
    if set(expected) != set(stored):
        msg = f"The stored weights do not fit the stored spec: {listed(sorted(set(expected) ^ set(stored)))} differ."
        raise ValueError(msg)
    state = {}
    for name, tensor in expected.items():
        array = np.asarray(stored[name])
        if array.shape != tuple(tensor.shape):
            msg = f"The stored weights {name!r} have shape {array.shape}, but the spec needs {tuple(tensor.shape)}."
            raise ValueError(msg)
        state[name] = torch.tensor(array, dtype=tensor.dtype)
    return state


def columns_from_params(params: Mapping[str, Any]) -> ColumnKeys:
    """Return the columns that a fit used; options left at None were not stored."""
    return ColumnKeys(
        batch_key=params.get("batch_key"),
        labels_key=params.get("labels_key"),
        categorical_covariate_keys=from_uns_strings(params.get("categorical_covariate_keys", ())),
        continuous_covariate_keys=from_uns_strings(params.get("continuous_covariate_keys", ())),
        size_factor_key=params.get("size_factor_key"),
    )


def _categories(entry: Mapping[str, Any]) -> Categories:
    categorical = entry.get("categorical", {})
    return Categories(
        batch=from_uns_strings(entry["batch"]),
        labels=from_uns_strings(entry["labels"]),
        categorical=tuple(from_uns_strings(categorical[str(i)]) for i in range(len(categorical))),
        continuous_mean=tuple(np.ravel(entry["continuous_mean"]).tolist()),
        continuous_sd=tuple(np.ravel(entry["continuous_sd"]).tolist()),
        log_size_factor_offset=float(entry["log_size_factor_offset"]),
        batch_weights=tuple(np.ravel(entry["batch_weights"]).tolist()),
    )


def _match_genes(adata: ad.AnnData, var_names: tuple[str, ...]) -> np.ndarray:
    check_unique_genes(adata.var_names)
    positions = adata.var_names.get_indexer(list(var_names))
    missing = positions < 0
    if missing.any():
        names = listed(np.asarray(var_names)[missing], most=3)
        msg = (
            f"{int(missing.sum())} of the model's {len(var_names)} genes are not in `adata.var_names` (first: {names})."
        )
        raise KeyError(msg)
    return positions.astype(np.int64)
