"""Groups of cells, and their colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import scanpy as sc

from ._axes import BLACK, BLUE, ORANGE

if TYPE_CHECKING:
    from anndata import AnnData

COLORS = (BLUE, "#E69F00", "#009E73", "#56B4E9", BLACK, ORANGE, "#CC79A7", "#F0E442")
"""Okabe and Ito's, in an order in which the first ones differ in lightness too: without red or green they still do."""


class Groups(NamedTuple):
    """The groups of a column of `obs`."""

    names: list[str]
    codes: np.ndarray
    """Group of each cell; -1 for none."""
    colors: list[str]
    ordered: bool
    """Whether the order of the names means something."""


def read_groups(adata: AnnData, groupby: str) -> Groups:
    """Return the groups that have cells, in the colours that scanpy stored, or else in colours told apart easily.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If it holds numbers that are no groups.
    """
    if groupby not in adata.obs:
        msg = f"`groupby` is {groupby!r}, but adata.obs has {', '.join(map(repr, adata.obs.columns))}."
        raise KeyError(msg)
    column = adata.obs[groupby]
    if pd.api.types.is_float_dtype(column.dtype):
        msg = f"adata.obs[{groupby!r}] holds numbers, but groups were expected. Pass a categorical column."
        raise ValueError(msg)
    values = column.cat if isinstance(column.dtype, pd.CategoricalDtype) else column.astype("category").cat
    counts = np.bincount(values.codes[values.codes >= 0], minlength=len(values.categories))
    present = np.flatnonzero(counts)
    if not len(present):
        msg = f"adata.obs[{groupby!r}] names no group for any cell."
        raise ValueError(msg)
    new_code = np.full(len(counts) + 1, -1)  # the last is that of cells without a group, -1
    new_code[present] = np.arange(len(present))
    colors = _colors(adata, groupby, len(counts))
    return Groups(
        [str(values.categories[i]) for i in present],
        new_code[values.codes.to_numpy()],
        [colors[i] for i in present],
        bool(values.ordered),
    )


def _colors(adata: AnnData, groupby: str, n: int) -> list[str]:
    stored = adata.uns.get(f"{groupby}_colors")
    if stored is not None and len(stored) >= n:
        return [str(color) for color in stored][:n]
    palettes = (COLORS, sc.pl.palettes.default_20, sc.pl.palettes.default_28, sc.pl.palettes.default_102)
    palette = next((p for p in palettes if len(p) >= n), palettes[-1])
    return [palette[i % len(palette)] for i in range(n)]
