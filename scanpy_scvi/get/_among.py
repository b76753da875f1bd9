"""Rows of a stored table that are of chosen groups."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd


def among(column: pd.Series, wanted: str | Sequence[str], name: str, key: str) -> np.ndarray:
    """Which rows have one of the names; a KeyError for a name that is not there."""
    several = isinstance(wanted, Iterable) and not isinstance(wanted, str)
    names = [str(w) for w in (wanted if several else [wanted])]
    known = list(column.cat.categories)
    unknown = [n for n in names if n not in known]
    if unknown:
        msg = f"adata.uns[{key!r}] has no {name} {', '.join(map(repr, unknown))}, but {', '.join(map(repr, known))}."
        raise KeyError(msg)
    return column.isin(names).to_numpy()
