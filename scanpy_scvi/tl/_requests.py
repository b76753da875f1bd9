"""Genes and batches that a call asks a fit for, by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..store.checks import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..store.load import Fitted


def plain_batches(transform_batch: str | Sequence[str] | None) -> str | list[str] | None:
    """`transform_batch` as it can be stored."""
    if transform_batch is None or isinstance(transform_batch, str):
        return transform_batch
    return [str(batch) for batch in transform_batch]


def gene_positions(fitted: Fitted, genes: Sequence[str] | None) -> np.ndarray | None:
    """Positions of the genes among those modelled, by default of all that `adata` has; None for all of the model."""
    if genes is None:
        return None if len(fitted.present) == len(fitted.var_names) else fitted.present
    index = pd.Index(fitted.var_names)
    positions = index.get_indexer(list(genes))
    if (positions < 0).any():
        missing = [g for g, p in zip(genes, positions, strict=True) if p < 0]
        where = f"`adata.var[{fitted.keys.modelled!r}]`"
        msg = f"The genes {listed(missing, most=3)} are not modelled. {where} tells which are; choose among those."
        raise KeyError(msg)
    absent = [fitted.var_names[p] for p in positions if fitted.gene_positions[p] < 0]
    if absent:
        msg = (
            f"The genes {listed(absent, most=3)} are modelled, but these cells lack them. Choose among those they have."
        )
        raise KeyError(msg)
    return positions


def gene_names(fitted: Fitted, genes: Sequence[str] | None) -> list[str]:
    """Names of the genes asked for, by default of all modelled ones that `adata` has."""
    return list(fitted.present_names if genes is None else genes)


def batch_weights(fitted: Fitted, transform_batch: str | Sequence[str] | None) -> np.ndarray | None:
    """Weight of each batch; None for each cell's own. Batches are known by their names as strings."""
    if transform_batch is None:
        return np.asarray(fitted.categories.batch_weights)
    if isinstance(transform_batch, str) and transform_batch == "observed":
        return None
    if fitted.columns.batch_key is None:
        msg = (
            f"`transform_batch` is {transform_batch!r}, but the model was fitted without `batch_key` and knows no "
            "batches. Leave it out."
        )
        raise ValueError(msg)
    several = isinstance(transform_batch, Iterable) and not isinstance(transform_batch, str)
    wanted = list(dict.fromkeys(str(b) for b in (transform_batch if several else [transform_batch])))
    unseen = [b for b in wanted if b not in fitted.categories.batch]
    if unseen or not wanted:
        known = listed(fitted.categories.batch)
        msg = f"`transform_batch` has {listed(unseen)}, but the model knows the batches {known}. Choose among those."
        raise ValueError(msg)
    weights = np.zeros(len(fitted.categories.batch))
    weights[[fitted.categories.batch.index(b) for b in wanted]] = 1 / len(wanted)
    return weights
