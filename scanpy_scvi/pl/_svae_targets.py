"""Which latents each perturbation shifts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import scanpy as sc
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.transforms import ScaledTranslation

from .. import get
from ._axes import GREY, finish, take_axes
from ._beside import axes_beside
from ._groups import COLORS
from ._similar import similar_beside

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend

FIELD = 0.24
"""Width of a field, in inches."""
HEIGHTS = ((60, 0.2, 8.0), (np.inf, 0.13, 6.0))
"""Most perturbations, height of a row in inches, and size of its name."""
LETTER = 0.0105
"""Width of a letter of size 1, in inches."""
SMALLEST, HALF, LARGEST = 0.2, 0.5, 0.96
"""Side of the square of a gate that is closed for sure, of one that is no target though likely open, of a target."""
FAINT = 0.35
"""Opacity of closed gates."""
GUIDE = "#DDDDDD"
"""Colour of the lines from a field to its names."""
EDGE = 0.98
"""Quantile of the sizes of open shifts at which the colours end."""


def svae_targets(
    adata: AnnData,
    perturbations: Sequence[str] | None = None,
    *,
    groups: Mapping[str, str] | pd.Series | None = None,
    key: str = "svae",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Draw the shift of every perturbation along every latent, and which of them are targets.

    The colour is the signed shift, in standard deviations of the prior. The side of a square grows with the probability
    that its gate is open, and what is no target stays small and faint. Perturbations with similar shifts stand
    together, and so do latents that the same perturbations shift. The numbers of the latents mean nothing, and neither
    does their sign: what they do is in :func:`scanpy_scvi.pl.svae_program`.

    Parameters
    ----------
    adata
        Annotated data with a fit by :func:`scanpy_scvi.tl.svae`.
    perturbations
        Names of those to draw; all by default.
    groups
        Group of each perturbation by its name, such as the complex that the target belongs to; drawn as a strip on the
        left. Some may have none.
    key
        The ``key_added`` of the fit.
    ax
        Axes to draw in; by default those of a new figure, which is as high as the names need.
    show
        Whether to show the figure at once; ``None`` follows ``sc.settings.autoshow``.
    save
        Whether to save the figure under ``sc.settings.figdir``; a string is added to the file's name.
    return_fig
        Whether to return the figure in place of its axes.

    Returns
    -------
    The axes or the figure, or ``None`` where it was shown.

    Raises
    ------
    KeyError
        If there is no fit with perturbations under that key, or no such perturbation.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate_perturbations(n_perturbations=8, n_latent=3, cells_per_perturbation=30)
    >>> sv.tl.svae(adata, "perturbation", control="control", n_latent=3, max_epochs=5, progress=False)
    >>> ax = sv.pl.svae_targets(adata, show=False)
    >>> len(ax.get_yticks()), len(ax.get_xticks())
    (8, 3)
    """
    space = chosen(get.perturbations(adata, key), perturbations, key)
    space = space[similar_beside(space.X), similar_beside(space.X.T)]
    strip = None if groups is None else read_strip(groups, list(space.obs_names))
    height, size = next((height, size) for most, height, size in HEIGHTS if space.n_obs <= most)
    names, keys = (max(map(len, n)) for n in (space.obs_names, strip.colors if strip else [""]))
    below = 2.2 + (0.2 * len(strip.colors) if strip else 0.0)
    width = FIELD * (space.n_vars + 1) + LETTER * (size * names + 8 * max(keys - 12, 0)) + 1.7
    ax = take_axes(ax, (width, max(height * space.n_obs + 0.8, below + 0.5)))
    _fields(ax, space)
    _names(ax, space, size)
    if strip is not None:
        _draw_strip(ax, strip)
    return finish(ax, "svae_targets", show=show, save=save, return_fig=return_fig)


def chosen(space: AnnData, perturbations: Sequence[str] | None, key: str) -> AnnData:
    """Some of the perturbations, or a KeyError that names those that are not there."""
    if perturbations is None:
        return space
    wanted = [perturbations] if isinstance(perturbations, str) else [str(name) for name in perturbations]
    missing = [name for name in wanted if name not in space.obs_names]
    if missing or not wanted:
        there = ", ".join(map(repr, space.obs_names[:10])) + (", …" if space.n_obs > 10 else "")
        msg = f"adata.uns[{key!r}] has no perturbation {', '.join(map(repr, missing[:5]))}, but {there}."
        raise KeyError(msg)
    return space[list(dict.fromkeys(wanted))].copy()


def _fields(ax: Axes, space: AnnData) -> None:
    """A square for each gate, row 0 on top, and the key of the colours."""
    effects, shift, probability = np.asarray(space.X), space.layers["shift"], space.layers["probability"]
    is_open, sizes = effects != 0, np.abs(effects[effects != 0])
    limit = float(np.quantile(sizes, EDGE)) if len(sizes) else 1.0
    side = SMALLEST + (np.where(is_open, LARGEST, HALF) - SMALLEST) * np.clip(np.nan_to_num(probability), 0, 1)
    squares = [
        Rectangle((j - side[i, j] / 2, i - side[i, j] / 2), side[i, j], side[i, j]) for i, j in np.ndindex(shift.shape)
    ]
    colors = ScalarMappable(Normalize(-limit, limit), "RdBu_r")
    fields = PatchCollection(squares, cmap=colors.cmap, norm=colors.norm, linewidths=0)
    fields.set_array(shift.ravel())
    fields.set_alpha(np.where(is_open, 1.0, FAINT).ravel().tolist())
    ax.add_collection(fields)
    ax.hlines(range(space.n_obs), -0.5, space.n_vars - 0.5, color=GUIDE, linewidth=0.5, zorder=0)
    ax.vlines(range(space.n_vars), -0.5, space.n_obs - 0.5, color=GUIDE, linewidth=0.5, zorder=0)
    ax.set_xlim(-0.6, space.n_vars - 0.4)
    ax.set_ylim(space.n_obs - 0.4, -0.6)
    beyond = "both" if len(sizes) and sizes.max() > limit else "neither"
    bar = ax.figure.figure.colorbar(colors, cax=axes_beside(ax, 0.1, (0.12, 1.3)), extend=beyond)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8)
    bar.set_label("shift (sd of the prior)", fontsize=8)


def _names(ax: Axes, space: AnnData, size: float) -> None:
    """Names of perturbations and latents, those above and below where the way is long."""
    ax.set_yticks(range(space.n_obs), list(space.obs_names), fontsize=size)
    ax.set_xticks(range(space.n_vars), list(space.var_names), fontsize=8)
    ax.tick_params(length=0, labeltop=space.n_obs > HEIGHTS[0][0])
    ax.spines[:].set_visible(False)
    ax.set_xlabel("latent dimension")
    marks = [
        Line2D([], [], marker="s", linestyle="", color=GREY, markersize=9, label="target"),
        Line2D([], [], marker="s", linestyle="", color=GREY, markersize=3, alpha=FAINT + 0.2, label="no target"),
    ]
    _legend(ax, marks, 1.6, None)


def _legend(ax: Axes, marks: list[Line2D], down: float, title: str | None) -> Legend:
    """A legend to the right of the axes, some inches below their upper edge."""
    at = ax.transAxes + ScaledTranslation(0.15, -down, ax.figure.figure.dpi_scale_trans)
    look: dict[str, Any] = {"frameon": False, "fontsize": 8, "title_fontsize": 8, "alignment": "left"}
    return ax.legend(
        handles=marks, title=title, loc="upper left", bbox_to_anchor=(1, 1), bbox_transform=at, borderaxespad=0, **look
    )


class Strip(NamedTuple):
    """Groups of the rows."""

    of_row: list[str | None]
    colors: dict[str, str]
    title: str | None


def read_strip(groups: Mapping[str, str] | pd.Series, names: list[str]) -> Strip:
    """Group of each perturbation, None where it has none, and colours in the order of the groups' names."""
    title = str(groups.name) if isinstance(groups, pd.Series) and groups.name is not None else None
    given = {str(name): str(group) for name, group in dict(groups).items() if not pd.isna(group)}
    of_row = [given.get(name) for name in names]
    found = sorted({group for group in of_row if group is not None})
    if not found:
        msg = f"`groups` names no group of any of the perturbations, which are {', '.join(map(repr, names[:10]))}."
        raise KeyError(msg)
    palettes = (COLORS, sc.pl.palettes.default_20, sc.pl.palettes.default_28, sc.pl.palettes.default_102)
    palette = next((p for p in palettes if len(p) >= len(found)), palettes[-1])
    return Strip(of_row, {group: palette[i % len(palette)] for i, group in enumerate(found)}, title)


def _draw_strip(ax: Axes, strip: Strip) -> None:
    """A square in the colour of the group before each row."""
    for i, group in enumerate(strip.of_row):
        if group is not None:
            ax.add_patch(Rectangle((-1.5, i - 0.5), 0.6, 1.0, color=strip.colors[group], linewidth=0))
    ax.set_xlim(left=-1.6)
    kinds = ax.get_legend()
    marks = [Line2D([], [], marker="s", linestyle="", color=c, label=group) for group, c in strip.colors.items()]
    _legend(ax, marks, 2.1, strip.title)
    if kinds is not None:  # which axes drop for a second one
        ax.add_artist(kinds)
        kinds.set_clip_on(False)
