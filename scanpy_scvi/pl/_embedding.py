"""Cells drawn in an embedding, coloured by a number or a category."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D

from ._axes import GREY
from ._panels import random_order

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection

    from ._groups import Groups

AREA = 30_000
"""Area of all points together, in squares of a point; a point has at most `LARGEST`."""
LARGEST = 40
MOST_IN_COLUMN = 14
"""Entries of a legend in one column."""


def coordinates(adata: AnnData, basis: str, advice: str) -> np.ndarray:
    """First two columns of `obsm[basis]` or `obsm["X_" + basis]`."""
    for name in (basis, f"X_{basis}"):
        if name in adata.obsm:
            return np.asarray(adata.obsm[name])[:, :2]
    msg = f"`adata.obsm` has neither {basis!r} nor {f'X_{basis}'!r}. {advice}"
    raise KeyError(msg)


def scatter_values(
    ax: Axes, at: np.ndarray, values: np.ndarray, *, order: np.ndarray, cmap: str, limits: tuple[float, float]
) -> PathCollection:
    """Points coloured by a number, drawn in `order`, with a colour bar."""
    points = ax.scatter(
        at[order, 0],
        at[order, 1],
        c=values[order],
        s=_size(len(at)),
        cmap=cmap,
        vmin=limits[0],
        vmax=limits[1],
        linewidths=0,
    )
    points.set_rasterized(True)
    _bare(ax)
    ax.figure.colorbar(points, ax=ax, shrink=0.7, aspect=15, pad=0.02).outline.set_visible(False)
    return points


def scatter_groups(ax: Axes, at: np.ndarray, groups: Groups) -> None:
    """Points coloured by group, in an order without meaning, so that none hides the others; without a group in grey."""
    order = random_order(len(at))
    shades = np.array([*groups.colors, GREY])[groups.codes[order]]  # the code of none is -1
    ax.scatter(at[order, 0], at[order, 1], c=shades, s=_size(len(at)), linewidths=0).set_rasterized(True)
    _bare(ax)


def legend_of(ax: Axes, groups: Groups, title: str) -> None:
    """Legend to the right of the axes."""
    pairs = zip(groups.names, groups.colors, strict=True)
    handles = [Line2D([], [], marker="o", linestyle="", markersize=6, color=c, label=n) for n, c in pairs]
    ax.legend(
        handles=handles,
        title=title,
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        ncols=-(-len(handles) // MOST_IN_COLUMN),
        alignment="left",
    )


def _size(n_cells: int) -> float:
    return min(AREA / max(n_cells, 1), LARGEST)


def _bare(ax: Axes) -> None:
    """Axes of an embedding have no numbers worth reading."""
    ax.set(xticks=[], yticks=[])
    ax.spines[["top", "right", "bottom", "left"]].set_visible(False)
