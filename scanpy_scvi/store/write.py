"""A fit -> AnnData."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from .. import __version__
from ..training.history import history_arrays
from .identity import WEIGHTS_ID, data_entry, weights_id
from .keys import OBS_COLUMNS, OBSM_KEYS, SCHEMA, VAR_COLUMNS, VARM_KEYS, Keys, check_name
from .representations import without_representations
from .uns import Stored, from_uns_strings, to_uns

if TYPE_CHECKING:
    import anndata as ad
    import torch

    from ..modules.spec import ModelSpec
    from ..modules.vae import VAE
    from ..training.config import TrainingConfig
    from ..training.fit import FitResult
    from ..training.sources import CountSource
    from .covariates import Categories

MODEL = ("spec", "state")
"""Parts of a fit that only a model needs."""
UNASSIGNED = "unassigned"
"""Category of cells in no cluster."""
BESIDE = (OBS_COLUMNS, VAR_COLUMNS, OBSM_KEYS, VARM_KEYS)
"""Where the names of :class:`Beside` lie in an entry."""
VERSIONED = ("torch", "anndata", "numba", "numpy")
"""Packages whose versions are stored with a fit."""


class Beside(NamedTuple):
    """Names of what a fit writes beyond what every fit does."""

    obs: tuple[str, ...] = ()
    var: tuple[str, ...] = ()
    obsm: tuple[str, ...] = ()
    varm: tuple[str, ...] = ()

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Beside:
        """What a stored fit wrote."""
        return cls(*(from_uns_strings(entry.get(name, ())) for name in BESIDE))


NOTHING = Beside()


class Extras(NamedTuple):
    """The same with values."""

    obs: Mapping[str, Any] = MappingProxyType({})
    var: Mapping[str, np.ndarray] = MappingProxyType({})
    obsm: Mapping[str, np.ndarray] = MappingProxyType({})
    varm: Mapping[str, np.ndarray] = MappingProxyType({})


NO_EXTRAS = Extras()


def check_free(adata: ad.AnnData, keys: Keys, read: Collection[str] = (), beside: Beside = NOTHING) -> None:
    """Raise a ValueError where a slot of this fit cannot be stored or holds something that is not a fit of ours.

    What is written `beside` has to be free too; none of its columns may be one that is `read`.
    """
    check_name(keys.key_added, "key_added")
    check_writable(adata)
    taken = taken_slot(adata, keys, read, beside)
    if taken:
        msg = (
            f"`adata.{taken}` exists and was not written by scanpy_scvi, but `key_added={keys.key_added!r}` would "
            "overwrite it. Pass another `key_added`, or delete it first."
        )
        raise ValueError(msg)


def taken_slot(adata: ad.AnnData, keys: Keys, read: Collection[str] = (), beside: Beside = NOTHING) -> str | None:
    """First slot of a fit that holds something else, as in ``uns['scvi']``; None where there is none."""
    entry = adata.uns.get(keys.uns)
    ours = isinstance(entry, Mapping) and {"schema", "history"} <= set(entry)
    own = Beside.of(entry) if ours else Beside()
    taken_beside = [
        f"{slot}[{name!r}]"
        for slot in Beside._fields
        for name in getattr(beside, slot)
        if name in getattr(adata, slot) and (name not in getattr(own, slot) or (slot == "obs" and name in read))
    ]
    if ours and not taken_beside:
        return None
    taken = [f"uns[{keys.uns!r}]"] if keys.uns in adata.uns and not ours else []
    slots = (
        ("obsm", keys.latent),
        ("obsm", keys.latent_var),
        ("obsm", keys.responsibilities),
        ("obs", keys.component),
        ("layers", keys.normalized),
        ("var", keys.modelled),
        ("var", keys.dispersion),
        ("varm", keys.dispersion),
        ("varm", keys.loadings),
    )
    taken += [f"{slot}[{key!r}]" for slot, key in slots if key in getattr(adata, slot)] if not ours else []
    taken += taken_beside
    return taken[0] if taken else None


def check_writable(adata: ad.AnnData) -> None:
    """Raise a ValueError for an object that cannot take results."""
    if adata.is_view and adata.isbacked:
        msg = "`adata` is a view of a file, which cannot take results. Call `adata = adata.to_memory()` first."
        raise ValueError(msg)


def actualise(adata: ad.AnnData) -> None:
    """Turn a view into an object of its own, as scanpy does before it writes."""
    if adata.is_view:
        adata._init_as_actual(adata.copy())


def model_entry(
    model: VAE,
    spec: ModelSpec,
    config: TrainingConfig,
    result: FitResult,
    *,
    params: Mapping[str, Any],
    categories: Categories,
    obs_names: np.ndarray,
    var_names: np.ndarray,
    counts: CountSource,
    depth: np.ndarray | None = None,
) -> dict[str, Stored]:
    """Content of `uns[key]`: parameters, model, history and verdict, as plain arrays and strings."""
    entry = {
        "schema": SCHEMA,
        "params": params,
        "spec": spec.to_json(),
        "training": asdict(config),
        "categories": categories_entry(categories),
        "var_names": np.asarray(var_names, dtype=str),
        "data": data_entry(counts, obs_names),
        "history": history_arrays(result.history),
        "convergence": asdict(result.convergence),
        "validation_cells": result.validation_rows,
        "validation_names": [str(name) for name in obs_names[result.validation_rows]],
        "state": {name: tensor.detach().cpu().numpy() for name, tensor in without_representations(model).items()},
        "versions": {"scanpy-scvi": __version__, **{name: version(name) for name in VERSIONED}},
        "seed": config.random_state,
        "depth": depth,
    }
    stored = to_uns(entry)
    assert isinstance(stored, dict)  # for the type checker: a mapping stays one
    return stored


def drop_model(adata: ad.AnnData, keys: Keys) -> None:
    """Leave of a fit what can be read without a model, and which latent space it was."""
    entry = adata.uns[keys.uns]
    kept = {name: value for name, value in entry.items() if name not in MODEL}
    adata.uns[keys.uns] = {**kept, WEIGHTS_ID: weights_id(entry)}


def categories_entry(categories: Categories) -> dict[str, Any]:
    """Categories as storable arrays, by name."""
    entry = asdict(categories)
    entry["categorical"] = {str(i): names for i, names in enumerate(categories.categorical)}
    return entry


def write_latent(adata: ad.AnnData, keys: Keys, mean: np.ndarray, var: np.ndarray | None) -> None:
    """Write the posterior moments of z; no variance for points, not even that of an earlier fit."""
    adata.obsm[keys.latent] = mean
    if var is not None:
        adata.obsm[keys.latent_var] = var
    elif keys.latent_var in adata.obsm:
        del adata.obsm[keys.latent_var]


def write_components(adata: ad.AnnData, keys: Keys, responsibilities: np.ndarray | None) -> None:
    """Write the components' probabilities and the likeliest one; None removes those of an earlier fit.

    Components are named by their column; the categories are those that some cell has.
    """
    if responsibilities is None:
        if keys.responsibilities in adata.obsm:
            del adata.obsm[keys.responsibilities]
            if keys.component in adata.obs:
                del adata.obs[keys.component]
        return
    adata.obsm[keys.responsibilities] = responsibilities
    hard = pd.Categorical.from_codes(responsibilities.argmax(1), component_names(responsibilities.shape[1]))
    adata.obs[keys.component] = hard.remove_unused_categories()


def write_extras(adata: ad.AnnData, entry: dict[str, Any], extras: Extras) -> None:
    """Write what a fit has beyond what every fit has, and note in its entry that it is its own."""
    for slot, name in zip(Extras._fields, BESIDE, strict=True):
        values = getattr(extras, slot)
        for key, value in values.items():
            getattr(adata, slot)[key] = value
        if values:
            entry[name] = to_uns(list(values))


def drop_extras(adata: ad.AnnData, keys: Keys) -> None:
    """Drop that of an earlier fit under the key."""
    entry = adata.uns.get(keys.uns)
    if isinstance(entry, Mapping):
        for slot, names in Beside.of(entry)._asdict().items():
            for name in names:
                if name in getattr(adata, slot):
                    del getattr(adata, slot)[name]


def cluster_column(numbers: np.ndarray, n_clusters: int) -> pd.Categorical:
    """Clusters by number, the largest first; cells in none (-1) are a category of their own."""
    names = [*map(str, range(n_clusters)), UNASSIGNED]
    column = pd.Categorical.from_codes(np.where(numbers < 0, n_clusters, numbers), names)
    return column.remove_unused_categories()


def component_names(n: int) -> list[str]:
    """Names of the components of a prior: their numbers, the heaviest first."""
    return [str(k) for k in range(n)]


def write_genes(adata: ad.AnnData, keys: Keys, genes: np.ndarray, log_theta: torch.Tensor | None) -> None:
    """Write which genes are modelled, by their positions, and their inverse dispersion theta (NaN outside the model).

    One value per gene goes to `var`, several (per batch or label) to `varm`, with a column for each code.
    """
    modelled = np.zeros(adata.n_vars, bool)
    modelled[genes] = True
    adata.var[keys.modelled] = modelled
    if keys.dispersion in adata.var:
        del adata.var[keys.dispersion]
    if keys.dispersion in adata.varm:
        del adata.varm[keys.dispersion]
    if log_theta is None:
        return
    theta = np.full((adata.n_vars, len(log_theta)), np.nan, np.float32)
    theta[genes] = log_theta.exp().T.numpy()
    if theta.shape[1] == 1:
        adata.var[keys.dispersion] = theta[:, 0]
    else:
        adata.varm[keys.dispersion] = theta


def write_loadings(adata: ad.AnnData, keys: Keys, genes: np.ndarray, loadings: torch.Tensor | None) -> None:
    """Write the loadings of a linear decoder, genes (by positions) x latent dimensions; NaN outside the model."""
    if keys.loadings in adata.varm:
        del adata.varm[keys.loadings]
    if loadings is not None:
        adata.varm[keys.loadings] = rows_of_genes(adata, genes, loadings.numpy())


def rows_of_genes(adata: ad.AnnData, positions: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Rows for all genes of `adata`, float32: `values` of those at `positions` (-1: not there), otherwise NaN."""
    rows = np.full((adata.n_vars, *values.shape[1:]), np.nan, np.float32)
    present = positions >= 0
    rows[positions[present]] = values[present]
    return rows


def fill_layer(
    adata: ad.AnnData, positions: np.ndarray, chunks: Iterator[tuple[np.ndarray, np.ndarray]], layer: Any = None
) -> Any:
    """Put chunks of cells, in their order, into a cells x genes matrix, float32, NaN for genes other than `positions`.

    `layer` is an array to be filled, of NumPy or in a file; by default a new one.
    """
    layer = np.empty(adata.shape, np.float32) if layer is None else layer
    for rows, chunk in chunks:
        block = np.full((len(rows), adata.n_vars), np.nan, np.float32)
        block[:, positions] = chunk
        layer[int(rows[0]) : int(rows[-1]) + 1] = block
    return layer
