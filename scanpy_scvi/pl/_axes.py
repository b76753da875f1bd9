"""What all plots share: axes, colours, and scanpy's way of showing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import scanpy as sc

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito: told apart by colour-blind readers too
BLUE, ORANGE, GREY, BLACK = "#0072B2", "#D55E00", "#999999", "#000000"
PALETTE = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", BLACK)


def take_axes(ax: Axes | None) -> Axes:
    """Return the axes to draw in: the given ones, or those of a new figure."""
    if ax is None:
        ax = plt.subplots(figsize=(5, 3.5), layout="constrained")[1]
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax


def show_or_return(ax: Axes, show: bool | None) -> Axes | None:  # noqa: FBT001  (scanpy's three-valued option)
    """Show the figure and return None, or return the axes; ``show=None`` follows ``sc.settings.autoshow``."""
    if sc.settings.autoshow if show is None else show:
        plt.show()
        return None
    return ax
