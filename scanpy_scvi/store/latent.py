"""Latent states that lie in an AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .checks import require_key, short
from .keys import Keys
from .typed import array, at

if TYPE_CHECKING:
    import anndata as ad


def stored_latent(adata: ad.AnnData, key: str) -> np.ndarray:
    """Posterior means of z under `obsm["X_<key>"]`: a finite matrix of numbers, cells x n_latent."""
    return _matrix(adata, Keys(key).latent)


def stored_latent_var(adata: ad.AnnData, key: str) -> np.ndarray:
    """Posterior variances of z: positive, of the shape of the means."""
    slot = Keys(key).latent_var
    found, mean = _matrix(adata, slot), stored_latent(adata, key)
    if found.shape != mean.shape or not (found > 0).all():
        msg = (
            f"`{at('adata.obsm', slot)}` has shape {found.shape} and the least value {found.min(initial=np.inf):g}, "
            f"but positive numbers of shape {mean.shape} were expected. It is damaged: take an undamaged file."
        )
        raise ValueError(msg)
    return found


def _matrix(adata: ad.AnnData, slot: str) -> np.ndarray:
    require_key(slot, adata.obsm.keys(), where="adata.obsm", argument="key")
    where = at("adata.obsm", slot)
    found = array(adata.obsm[slot], where, kinds="f")
    if found.ndim != 2 or len(found) != adata.n_obs or not found.shape[1]:
        msg = f"`{where}` has shape {found.shape}, but a row for each of {adata.n_obs} cells was expected."
        raise ValueError(msg)
    bad = ~np.isfinite(found).all(1)
    if bad.any():
        cell = short(str(adata.obs_names[int(bad.argmax())]))
        msg = f"`{where}` has NaN or infinite values (first: cell {cell}). Fit again, or leave those cells out."
        raise ValueError(msg)
    return found
