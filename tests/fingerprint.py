"""Everything in an AnnData as nested tuples that compare bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

SLOTS = ("obs", "var", "uns", "obsm", "varm", "obsp", "varp", "layers")


def fingerprint(value: Any) -> Any:
    """Content, types and order of `value`; equal only where not a bit differs."""
    if isinstance(value, ad.AnnData):
        state = (value.is_view, value.isbacked, fingerprint(value.X), value.raw is None)
        return (*state, *((slot, fingerprint(getattr(value, slot))) for slot in SLOTS))
    if isinstance(value, pd.DataFrame):
        return ("table", fingerprint(value.index), *((c, fingerprint(value[c])) for c in value))
    if isinstance(value, (pd.Series, pd.Index)):
        return (str(value.dtype), value.name, fingerprint(value.array))
    if isinstance(value, pd.Categorical):
        return (fingerprint(value.codes), fingerprint(value.categories), value.ordered)
    if isinstance(value, pd.api.extensions.ExtensionArray):
        return fingerprint(np.asarray(value))
    if sparse.issparse(value):
        arrays = (value.data, value.indices, value.indptr)
        return (type(value).__name__, value.shape, *map(fingerprint, arrays))
    if isinstance(value, np.ndarray):
        content = repr(value.tolist()) if value.dtype == object else value.tobytes()
        return (value.dtype.str, value.shape, content)
    if isinstance(value, Mapping):
        return tuple((key, fingerprint(value[key])) for key in value)
    if hasattr(value, "shape") and hasattr(value, "__getitem__"):  # on disk
        return (type(value).__name__, fingerprint(value[: value.shape[0]]))
    return (type(value).__name__, repr(value))
