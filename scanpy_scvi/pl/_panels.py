"""Figures of several panels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D

from ._axes import take_axes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES_IN_AN_INCH = 5
"""Lines of a legend."""


def take_panels(n: int, n_columns: int, size: tuple[float, float], *, sharex: bool = False) -> list[Axes]:
    """Return the axes of n panels of a new figure, row by row.

    Parameters
    ----------
    n
        How many are needed.
    n_columns
        Panels in a row, at most.
    size
        Width and height of one, in inches.
    sharex
        As in :func:`matplotlib.pyplot.subplots`.
    """
    n_columns = min(n, n_columns)
    n_rows = -(-n // n_columns)
    figsize = (size[0] * n_columns, size[1] * n_rows)
    grid = plt.subplots(n_rows, n_columns, figsize=figsize, layout="constrained", sharex=sharex, squeeze=False)[1]
    panels = list(grid.ravel())
    for unused in panels[n:]:
        unused.remove()
        if sharex:  # what stands above it has lost its labels to it
            panels[panels.index(unused) - n_columns].tick_params(labelbottom=True)
    return [take_axes(ax) for ax in panels[:n]]


def stacked_panels(heights: Sequence[float], width: float) -> list[Axes]:
    """Return the axes of panels of given heights, one below the other, with one horizontal axis."""
    grid = plt.subplots(
        len(heights),
        figsize=(width, sum(heights)),
        layout="constrained",
        sharex=True,
        squeeze=False,
        height_ratios=heights,
    )[1]
    return [take_axes(ax) for ax in grid.ravel()]


def legend_beside(
    figure: Figure, colors: Mapping[str, str], title: str | None, *, free: tuple[float, float] = (0, 0)
) -> None:
    """Write a legend into the free upper right corner, or beside all panels in a figure made wider by it.

    Parameters
    ----------
    figure
        Where to write.
    colors
        Color of each name.
    title
        What the names are of.
    free
        Width and height in inches of a corner without panels.
    """
    width, height = figure.get_size_inches()
    marks = [Line2D([], [], marker="o", linestyle="", markersize=5, color=color) for color in colors.values()]
    look: dict[str, Any] = {"title": title, "frameon": False, "fontsize": 9, "handletextpad": 0.1, "alignment": "left"}
    legend = figure.legend(marks, colors, loc="upper right", **look)
    extent = legend.get_window_extent()
    if extent.width <= free[0] * figure.dpi and extent.height <= free[1] * figure.dpi:
        return
    legend.remove()
    n_columns = -(-len(colors) // max(8, int(height * NAMES_IN_AN_INCH)))
    legend = figure.legend(marks, colors, loc="outside right upper", ncols=n_columns, **look)
    figure.set_size_inches(width + legend.get_window_extent().width / figure.dpi, height)


def random_order(n: int) -> np.ndarray:
    """Order in which to draw cells so that no group hides another; always the same."""
    return np.random.default_rng(0).permutation(n)
