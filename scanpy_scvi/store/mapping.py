"""A mapped query -> `uns`."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..training.history import history_arrays
from .keys import ABSENT, CODES, Keys
from .representations import without_representations
from .slim import SLIM
from .typed import at, numbers
from .uns import to_uns
from .write import BESIDE, NOTHING, VERSIONED, Beside, categories_entry, check_writable, taken_slot

if TYPE_CHECKING:
    import anndata as ad

    from ..training.config import TrainingConfig
    from ..training.fit import FitResult
    from .load import Fitted

OF_THE_CELLS = (
    "params",
    "spec",
    "categories",
    "var_names",
    "data",
    "validation_cells",
    "state",
    ABSENT,
    SLIM,
    *BESIDE,
)
"""What belongs to the cells that lie beside it; all else, how the model was fitted and what it is, is taken over."""


def check_free_for_mapping(query: ad.AnnData, keys: Keys, reference: Mapping[str, Any]) -> None:
    """Raise a ValueError where results cannot be stored or would overwrite something that is not ours.

    `reference` is what is stored of the fit; where it has clusters, the query gets some.
    """
    check_writable(query)
    taken = taken_slot(query, keys, beside=Beside((keys.clusters,)) if CODES in reference else NOTHING)
    if taken:
        msg = (
            f"`query.{taken}` exists and was not written by scanpy_scvi, but results under the reference's key, "
            f"{keys.key_added!r}, would overwrite it. Rename or delete it first."
        )
        raise ValueError(msg)
    entry = query.uns.get(keys.mapping)
    if entry is not None and not (isinstance(entry, Mapping) and "reference_id" in entry):
        msg = f"`query.uns[{keys.mapping!r}]` exists and was not written by `map_query`. Delete it first."
        raise ValueError(msg)


def mapped_model(
    reference: Mapping[str, Any], mapped: Fitted, layer: str | None, data: Mapping[str, Any]
) -> dict[str, Any]:
    """Content of `uns[key]` of a mapped query: the reference's model, grown, with what is the query's own."""
    columns = mapped.columns
    own = {"batch_key": columns.batch_key, "labels_key": columns.labels_key, "layer": layer}
    params = {k: deepcopy(v) for k, v in reference["params"].items() if k not in own}
    weights = without_representations(mapped.model)
    stored = to_uns(
        {
            "spec": mapped.spec.to_json(),
            "categories": categories_entry(mapped.categories),
            "var_names": np.asarray(mapped.var_names, dtype=str),
            "data": data,
            "validation_cells": np.empty(0, np.int64),
            "state": {name: tensor.detach().cpu().numpy() for name, tensor in weights.items()},
            ABSENT: [name for name in mapped.var_names if name in mapped.absent_genes] or None,
        }
    )
    assert isinstance(stored, dict)  # for the type checker: a mapping stays one
    taken_over = {name: deepcopy(value) for name, value in reference.items() if name not in OF_THE_CELLS}
    return {**taken_over, "params": params | {k: v for k, v in own.items() if v is not None}, **stored}


def stored_depth(entry: Mapping[str, Any], key: str, n_latent: int) -> np.ndarray | None:
    """Depth of the reference's cells by their latent state; None where an earlier version fitted it."""
    if "depth" not in entry:
        return None
    return numbers(entry["depth"], at("reference.uns", key, "depth"), n=1 + n_latent)


def mapping_entry(
    reference_id: str,
    params: Mapping[str, Any],
    fitted: Fitted,
    mapped: Fitted,
    training: tuple[TrainingConfig, FitResult] | None,
) -> dict[str, Any]:
    """Content of `uns["<key>_mapping"]`."""
    known, categories = fitted.categories, mapped.categories
    n, n_matched = len(mapped.var_names), len(mapped.present)
    entry: dict[str, Any] = {
        "params": params,
        "reference_id": reference_id,
        "n_genes": n,
        "n_genes_matched": n_matched,
        "share_matched": n_matched / n,
        "new_batches": list(categories.batch[len(known.batch) :]),
        "versions": {"scanpy-scvi": __version__, **{name: version(name) for name in VERSIONED}},
    }
    pairs = zip(known.categorical, categories.categorical, strict=True)
    new_categories = {str(i): list(new[len(old) :]) for i, (old, new) in enumerate(pairs)}
    if any(new_categories.values()):
        entry["new_categories"] = new_categories
    if training is not None:
        config, result = training
        entry["training"] = asdict(config)
        entry["history"] = history_arrays(result.history)
        entry["convergence"] = asdict(result.convergence)
    stored = to_uns(entry)
    assert isinstance(stored, dict)  # for the type checker
    return stored
