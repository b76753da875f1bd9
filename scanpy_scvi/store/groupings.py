"""Columns of `obs` that group the cells, whether or not anybody asked for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from .checks import listed
from .finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    import anndata as ad
    import numpy as np

MAX_GROUPS = 100
"""More categories than this are names of cells rather than groups."""
BATCH_WORDS = (
    "batch",
    "sample",
    "library",
    "donor",
    "patient",
    "replicate",
    "orig.ident",
    "plate",
    "lane",
    "individual",
)


def groupings(adata: ad.AnnData, *, skip: set[str]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield the columns with 2 to `MAX_GROUPS` groups that are not numbers: name, codes, and where not missing."""
    for key in adata.obs.columns:
        column = adata.obs[key]
        kind = column.dtype
        if key in skip or not (
            isinstance(kind, pd.CategoricalDtype)
            or pd.api.types.is_object_dtype(kind)
            or pd.api.types.is_string_dtype(kind)
            or pd.api.types.is_bool_dtype(kind)
        ):
            continue
        codes, names = pd.factorize(column.astype(str).where(column.notna()))
        if 2 <= len(names) <= MAX_GROUPS:
            yield str(key), codes, codes >= 0


def likely_batch(adata: ad.AnnData) -> list[Finding]:
    """Name the columns that look like batches, for a call without `batch_key`."""
    columns = (key for key, _, _ in groupings(adata, skip=set()))
    likely = [key for key in columns if any(word in key.lower() for word in BATCH_WORDS)]
    if not likely:
        return [Finding("ok", "batches", "no `batch_key`: nothing is corrected for")]
    message = f"no `batch_key`: nothing is corrected for, though `obs` has {listed(likely)}"
    return [Finding("note", "batches", message)]
