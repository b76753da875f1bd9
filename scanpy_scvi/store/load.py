"""AnnData -> a fitted model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..modules.part import ModelPart
from .checks import check_is_object, check_unique_genes, listed
from .entry import check_weights, place, read_entry, unreadable, weights
from .keys import SCHEMA, Keys
from .read import read_like, read_without_counts
from .representations import (
    find_representations,
    stored_representations,
    with_representations,
    without_representations,
)
from .slim import counts_are_dropped, needs_counts, read_log_total, with_kept
from .typed import at, is_mapping, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    import anndata as ad

    from ..modules.spec import ModelSpec
    from ..modules.vae import VAE
    from ..training.batches import CellTable
    from .covariates import Categories, ColumnKeys
    from .entry import Entry


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
    """Columns of the model's genes in the AnnData, in the model's order; -1 for one that is not there."""
    var_names: tuple[str, ...]
    entry: Mapping[str, Any] = field(default_factory=dict)
    """What is stored."""
    slim: bool = False
    """Whether the model reads the posteriors of the cells that it was loaded with, whose counts were dropped."""
    absent_genes: frozenset[str] = frozenset()
    """Genes that need not be there: cells that were mapped to a reference lacked them."""

    def on(self, adata: ad.AnnData) -> Fitted:
        """Return the same model with the genes found in another AnnData, by name.

        A model without an encoder finds latent states for these cells, which takes an optimisation; whatever lies in
        `obsm` may be of another model.
        """
        other = replace(self, gene_positions=_match_genes(adata, self.var_names, self.absent_genes))
        return other if self.model.encoder.representations() is None else other._for_cells_of(adata, None)

    @property
    def present(self) -> np.ndarray:
        """Positions among the model's genes of those that the AnnData has."""
        return np.flatnonzero(self.gene_positions >= 0)

    @property
    def present_names(self) -> tuple[str, ...]:
        """Names of those."""
        return tuple(self.var_names[i] for i in self.present)

    @property
    def fitted_batches(self) -> np.ndarray:
        """Codes of the batches that averages are over: those of the fit, without any that were mapped to it."""
        return np.flatnonzero(self.categories.batch_weights)

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
        if self.slim:
            log_total = read_log_total(adata, self.keys)
            return read_without_counts(adata, self.columns, self.categories, len(self.var_names), log_total)
        if counts_are_dropped(adata, self.entry):
            raise needs_counts(self.keys.key_added, self.entry)
        return read_like(adata, self.columns, self.categories, self.gene_positions, self.params.get("layer"))

    def _for_cells_of(self, adata: ad.AnnData, z: np.ndarray | None) -> Fitted:
        """The same model with the latent states `z` of these cells; None finds them."""
        if z is None:
            z = find_representations(self.model, self.spec, self._read(adata), self.params)
        model = with_representations(self.model, torch.tensor(z))
        return replace(self, spec=self.spec.for_cells(adata.n_obs), model=model.eval())


def load(adata: ad.AnnData, key: str, *, counts: bool = True) -> Fitted:
    """Rebuild the model stored under `uns[key]`; genes are matched by name.

    With `counts=False` the caller asks nothing of the counts but the posteriors of these cells: where the counts were
    dropped by `tl.slim`, the model reads the stored ones. Otherwise reading such cells is a ValueError.

    The latent states of a model without an encoder are those in `obsm`; where there are none, they are found.

    Raises
    ------
    KeyError
        Where no fit is stored under the key, or genes of the model are missing.
    TypeError, ValueError
        Where what is stored is not a model that this version can read.
    """
    stored = find_entry(adata, key)
    entry = read_entry(stored, key)
    model = _model(entry, key)
    slim = not counts and counts_are_dropped(adata, stored)
    if slim:
        model = with_kept(model, adata, Keys(key))
    fitted = Fitted(
        model=model.eval(),
        spec=entry.spec,
        keys=Keys(key),
        params=entry.params,
        columns=entry.columns,
        categories=entry.categories,
        gene_positions=_match_genes(adata, entry.var_names, entry.absent_genes),
        var_names=entry.var_names,
        absent_genes=entry.absent_genes,
        entry=stored,
        slim=slim,
    )
    table = model.encoder.representations()
    if table is None:
        return fitted
    return fitted._for_cells_of(adata, stored_representations(adata, key, table.shape[1]))


def _model(entry: Entry, key: str) -> VAE:
    """Model of the stored specification with the stored weights.

    It is first made without memory, so that what a specification claims costs nothing until the stored arrays agree.
    """
    try:
        with torch.device("meta"):
            model = entry.spec.build().float()
    except (TypeError, ValueError, RuntimeError) as error:
        raise unreadable(key, error) from error
    empty = without_representations(model)
    shapes = {name: (tuple(t.shape), not t.is_floating_point()) for name, t in empty.items()}
    state = {}
    for name, values in weights(entry.state, shapes, key).items():
        like = empty[name]
        state[name] = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype)  # input-major weights stay so
        with np.errstate(over="ignore"):
            np.copyto(state[name].numpy(), values, casting="unsafe")
        check_weights(state[name].numpy(), name, key)
    model.load_state_dict(state, assign=True, strict=False)  # but for representations, all names are there
    try:
        for part in model.children():
            if isinstance(part, ModelPart):
                part.check()
    except ValueError as error:
        raise unreadable(key, error) from error
    table = model.encoder.representations()
    return model if table is None else with_representations(model, torch.empty(0, table.shape[1]))


def fits_in(adata: ad.AnnData) -> list[str]:
    """Keys of `uns` under which fitted models lie."""
    return [k for k, v in adata.uns.items() if is_mapping(v) and {"spec", "state", "schema"} <= set(v)]


def find_entry(adata: ad.AnnData, key: str) -> Mapping[str, Any]:
    """`uns[key]` of a fit."""
    if not isinstance(key, str):
        msg = f"`key` is of type {type(key).__name__}, but the name of a fit was expected."
        raise TypeError(msg)
    check_is_object(adata)
    fits = fits_in(adata)
    if key not in fits:
        if is_mapping(adata.uns.get(key)) and {"schema", "history"} <= set(adata.uns[key]):
            msg = (
                f"`{place(key)}` is of a fit with `store_model=False`, so no model can be asked. Fit again without it."
            )
            raise KeyError(msg)
        have = f"Fits are stored under {listed(fits)}: pass `key=`." if fits else "Run `scanpy_scvi.tl.scvi` first."
        msg = f"`{place(key)}` holds no fitted model. {have}"
        raise KeyError(msg)
    entry: Mapping[str, Any] = adata.uns[key]
    schema = whole(entry["schema"], at(place(key), "schema"), 1, 10**6)
    if schema > SCHEMA:
        msg = f"`{place(key)}` has schema {schema}, but this version reads up to {SCHEMA}. Install a newer scanpy-scvi."
        raise ValueError(msg)
    return entry


def _match_genes(adata: ad.AnnData, var_names: tuple[str, ...], absent_genes: frozenset[str]) -> np.ndarray:
    """Positions of the model's genes, -1 for those that may be absent and are."""
    check_unique_genes(adata.var_names)
    positions = adata.var_names.get_indexer(list(var_names))
    missing = [name for name, at in zip(var_names, positions, strict=True) if at < 0 and name not in absent_genes]
    if missing:
        msg = (
            f"{len(missing)} of the model's {len(var_names)} genes are not in `adata.var_names` (first: "
            f"{listed(missing, most=3)})."
        )
        raise KeyError(msg)
    return positions.astype(np.int64)
