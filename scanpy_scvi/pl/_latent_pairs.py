"""Cells in every pair of latent dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from ._axes import BLUE, take_axes
from ._groups import Groups
from ._panels import legend_beside, random_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDE = 1.7
"""Width and height of a panel, in inches."""
N_BINS = 25


def draw_pairs(z: np.ndarray, dims: list[int], groups: Groups | None, title: str | None) -> list[Axes]:
    """Draw the lower triangle of the grid, row by row, with histograms on the diagonal."""
    colored = groups or Groups(["cells"], np.zeros(len(z), int), [BLUE], ordered=False)
    side = SIDE * len(dims) + 0.5
    figure = plt.figure(figsize=(side, side), layout="constrained")
    grid = figure.add_gridspec(len(dims), len(dims))
    panels = []
    for row, y in enumerate(dims):
        for column, x in enumerate(dims[: row + 1]):
            ax = take_axes(figure.add_subplot(grid[row, column]))
            if row == column:
                _histograms(ax, z[:, x], colored)
            else:
                _cells(ax, z[:, [x, y]], colored)
                ax.set_ylim(_limits(z[:, y]))
            ax.set_xlim(_limits(z[:, x]))
            _name(ax, x, y, outer=(row == len(dims) - 1, column == 0), diagonal=row == column)
            panels.append(ax)
    if groups is not None:
        free = SIDE * min(1, len(dims) - 1), SIDE * (len(dims) - 1)  # the empty half of the last column
        legend_beside(figure, dict(zip(groups.names, groups.colors, strict=True)), title, free=free)
    return panels


def _cells(ax: Axes, points: np.ndarray, groups: Groups) -> None:
    order = random_order(len(points))
    order = order[groups.codes[order] >= 0]
    size = float(np.clip(8000 / max(len(order), 1), 0.5, 8))
    x, y = points[order].T
    ax.scatter(x, y, s=size, linewidths=0, c=np.array(groups.colors)[groups.codes[order]], rasterized=True)


def _histograms(ax: Axes, values: np.ndarray, groups: Groups) -> None:
    """Draw the share of each group's cells, so that small groups are seen too."""
    edges = np.linspace(*_limits(values), N_BINS + 1)
    for code, color in enumerate(groups.colors):
        own = values[groups.codes == code]
        ax.stairs(np.histogram(own, edges)[0] / len(own), edges, color=color, linewidth=1)
    ax.set_ylim(bottom=0)


def _limits(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def _name(ax: Axes, x: int, y: int, *, outer: tuple[bool, bool], diagonal: bool) -> None:
    """Label what stands at the lower and left edge of the grid, and leave out the other numbers."""
    ax.locator_params(nbins=4)
    ax.set_xlabel(f"dimension {x}" if outer[0] else "")
    ax.tick_params(labelbottom=outer[0], labelleft=outer[1] and not diagonal)
    if diagonal:
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
    elif outer[1]:
        ax.set_ylabel(f"dimension {y}")
