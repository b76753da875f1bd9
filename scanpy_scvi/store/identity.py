"""Fingerprints: of the weights, which say in what latent space results live, and of the data of a fit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..training.batches import COLUMNS
from ..training.sources import blocks
from .keys import Keys

if TYPE_CHECKING:
    import anndata as ad

    from ..modules.spec import ModelSpec
    from ..training.config import TrainingConfig
    from ..training.sources import CountSource
    from .read import Data

SEPARATOR = b"\x1f"
"""Ends each name, so that no two lists of names look alike."""


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


def names_id(names: Iterable[str]) -> str:
    """Fingerprint of names in their order, 32 hexadecimal digits."""
    digest = blake2b(digest_size=16)
    for name in names:
        digest.update(str(name).encode() + SEPARATOR)
    return digest.hexdigest()


def counts_id(counts: CountSource) -> str:
    """Fingerprint of counts, cells and genes in their order, 32 hexadecimal digits.

    The rows must be canonical (sorted columns, no zeros, no duplicates), as :func:`.read.read_counts` gives them; then
    it does not matter whether they lay in memory sparse or dense, or as what type, or in a file, which is read twice.
    """
    digest = blake2b(digest_size=16)
    digest.update(_bytes(counts.indptr, "<i8"))
    for _, rows in blocks(counts):
        digest.update(_bytes(rows.indices, "<i4"))
    for _, rows in blocks(counts):
        digest.update(_bytes(rows.data, "<f4"))
    return digest.hexdigest()


def _bytes(array: np.ndarray, dtype: str) -> memoryview:
    return np.ascontiguousarray(array, dtype=dtype).view(np.uint8).data


def data_entry(counts: CountSource, obs_names: Iterable[str]) -> dict[str, str | int]:
    """What a fit keeps of its data, to tell later whether they are still the same."""
    return {"n_cells": counts.n_cells, "cells": names_id(obs_names), "counts": counts_id(counts)}


COVARIATES = tuple(name for name in COLUMNS if name != "log_total")
"""Columns of a table of cells that a fit depends on beside the counts, of which totals follow."""


def fit_identity(
    data: Data, specs: Sequence[ModelSpec], config: TrainingConfig, obs_names: Iterable[str], var_names: Iterable[str]
) -> dict[str, Any]:
    """What a fit is of and by, as JSON can hold it: fits that agree in all of it go the same way."""
    covariates = {}
    for name in COVARIATES:
        values = np.ascontiguousarray(getattr(data.table, name))
        covariates[name] = blake2b(values.view(np.uint8).data, digest_size=16).hexdigest()
    genes = names_id(var_names)
    return {
        "scanpy-scvi": __version__,
        "training": asdict(config),
        "model": {str(i): json.loads(spec.to_json()) for i, spec in enumerate(specs)},
        "data": {**data_entry(data.table.counts, obs_names), "genes": genes, "covariates": covariates},
        "in_memory": data.table.counts.in_memory,  # where minibatches come in another order
    }
