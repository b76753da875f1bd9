"""What all plots share: axes, colours, and scanpy's way of showing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import matplotlib.pyplot as plt
import scanpy as sc

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Drawn = TypeVar("Drawn", "Axes", "list[Axes]")

# Okabe and Ito: told apart by colour-blind readers too
BLUE, ORANGE, GREY, BLACK = "#0072B2", "#D55E00", "#999999", "#000000"
PALETTE = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", BLACK)
PICTURES = (".pdf", ".png", ".svg")
"""File types that a name to save under may end in, as in scanpy."""


def take_axes(ax: Axes | None, figsize: tuple[float, float] = (5, 3.5)) -> Axes:
    """Return the axes to draw in: the given ones, or those of a new figure."""
    if ax is None:
        ax = plt.subplots(figsize=figsize, layout="constrained")[1]
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax


def finish(
    drawn: Drawn, name: str, *, show: bool | None, save: str | bool | None, return_fig: bool
) -> Drawn | Figure | None:
    """Save, show and return as scanpy does.

    Parameters
    ----------
    drawn
        The axes that were drawn in, or several of one figure.
    name
        What was drawn; begins the name of a saved file.
    show
        Whether to show the figure and return None; `None` follows `sc.settings.autoshow`, unless the figure is saved or
        returned.
    save
        Whether to save the figure under `sc.settings.figdir`; a string is added to the file's name and may end in
        ``.pdf``, ``.png`` or ``.svg``.
    return_fig
        Whether to return the figure in place of its axes.
    """
    figure: Figure = (drawn[0] if isinstance(drawn, list) else drawn).figure.figure  # of a subfigure, the whole
    if save:
        added = save if isinstance(save, str) else ""
        suffix = "" if added.endswith(PICTURES) else f".{sc.settings.file_format_figs}"
        folder = Path(sc.settings.figdir)
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"{name}{added}{suffix}", bbox_inches="tight")
    if return_fig:
        return figure
    if (sc.settings.autoshow and not save) if show is None else show:
        plt.show()
        return None
    return drawn
