"""Cells without their counts: what is kept in place of them, and how a model reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ..modules.encoders.stored import StoredEncoder
from ..modules.libraries import LogNormalLibrary
from ..modules.libraries.stored import StoredLibrary
from ..modules.vae import VAE
from .checks import listed
from .covariates import numeric_column
from .latent import stored_latent, stored_latent_var
from .typed import at, is_mapping, names

if TYPE_CHECKING:
    import anndata as ad

    from .keys import Keys

SLIM = "slim"
"""Key in `uns[key]` of a fit whose counts were dropped."""


class Kept(NamedTuple):
    """What stands for the counts of cells, arrays of one row a cell, float32."""

    mean: np.ndarray
    var: np.ndarray | None
    """None where the model gives points."""
    log_total: np.ndarray
    library: tuple[np.ndarray, np.ndarray] | None
    """Posterior mean and variance of a latent log library."""


def counts_are_dropped(adata: ad.AnnData, entry: Mapping[str, Any]) -> bool:
    """Whether the counts of a fit were dropped by `tl.slim` and have not been put back."""
    if not is_mapping(entry.get(SLIM)):
        return False
    params = entry.get("params")
    layer = params.get("layer") if isinstance(params, Mapping) else None
    return adata.X is None if layer is None else layer not in adata.layers


def needs_counts(key: str, entry: Mapping[str, Any]) -> ValueError:
    """What is said where counts are needed that were dropped."""
    gone = names(entry[SLIM].get("dropped", ()), at("adata.uns", key, SLIM, "dropped"))
    layer = entry["params"].get("layer")
    back = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    return ValueError(
        f"This needs the counts, which `tl.slim` dropped from `adata` ({listed(gone)}). Use the object from before, or "
        f"put the counts back into `{back}`."
    )


def write_kept(adata: ad.AnnData, keys: Keys, kept: Kept) -> None:
    """Write what stands for the counts; a posterior that is there stays."""
    for slot, values in ((keys.latent, kept.mean), (keys.latent_var, kept.var)):
        if slot not in adata.obsm and values is not None:
            adata.obsm[slot] = values
    adata.obs[keys.log_total] = kept.log_total
    if kept.library is not None:
        adata.obs[keys.log_library], adata.obs[keys.log_library_var] = kept.library


def read_log_total(adata: ad.AnnData, keys: Keys) -> np.ndarray:
    """Logarithms of the total counts over the modelled genes."""
    return numeric_column(adata, keys.log_total, "key")


def with_kept(model: VAE, adata: ad.AnnData, keys: Keys) -> VAE:
    """Return the model with a posterior, and a latent library, that are read by the number of the cell."""
    mean = stored_latent(adata, keys.key_added)
    var = None if model.encoder.gives_points else _tensor(stored_latent_var(adata, keys.key_added))
    if mean.shape[1] != (n_latent := _n_latent(model)):
        where = at("adata.obsm", keys.latent)
        msg = f"`{where}` has {mean.shape[1]} columns, but the model {n_latent} dimensions. It is damaged."
        raise ValueError(msg)
    library = model.library
    if isinstance(library, LogNormalLibrary):
        location, spread = (numeric_column(adata, name, "key") for name in (keys.log_library, keys.log_library_var))
        if (spread <= 0).any():
            msg = f"`{at('adata.obs', keys.log_library_var)}` has variances that are not positive. It is damaged."
            raise ValueError(msg)
        library = StoredLibrary(_tensor(location), _tensor(spread))
    return VAE(StoredEncoder(_tensor(mean), var), library, model.decoder, model.likelihood, model.prior)


def _n_latent(model: VAE) -> int:
    """Dimensions that the decoder takes."""
    return int(model.decoder.n_latent)


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32))
