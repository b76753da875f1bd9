"""Which latent space results live in: a fingerprint of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

from .keys import Keys

if TYPE_CHECKING:
    import anndata as ad


WEIGHTS_ID = "weights_id"
"""Key in `uns[key]` of a fit whose weights are not stored: their fingerprint."""


def weights_id(entry: Mapping[str, Any]) -> str:
    """Fingerprint of the weights of a stored fit, 32 hexadecimal digits; equal weights have equal ones."""
    digest = blake2b(digest_size=16)
    for name, value in sorted(entry["state"].items()):
        array = np.asarray(value)
        digest.update(f"{name} {array.dtype.str} {array.shape};".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def space_id(adata: ad.AnnData, key: str) -> str | None:
    """Fingerprint of the weights that made `obsm["X_<key>"]`: those of the reference, where cells were mapped to one.

    None where `adata` has neither a fit nor a mapping under the key.
    """
    keys = Keys(key)
    mapping, entry = adata.uns.get(keys.mapping), adata.uns.get(keys.uns)
    if isinstance(mapping, Mapping) and "reference_id" in mapping:
        return str(mapping["reference_id"])
    if isinstance(entry, Mapping) and "state" in entry:
        return weights_id(entry)
    if isinstance(entry, Mapping) and WEIGHTS_ID in entry:
        return str(entry[WEIGHTS_ID])
    return None
