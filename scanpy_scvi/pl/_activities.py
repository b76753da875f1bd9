"""Activities of gene sets that differ between groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import get
from ..get._rank_activities import stored_activities
from ._axes import BLACK, BLUE, GREY, ORANGE, finish, take_axes

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LETTER = 0.075
"""Width of a letter of a label, in inches."""


def activities(
    adata: AnnData,
    group: str | None = None,
    *,
    n_sets: int | None = None,
    key: str = "rank_activities_vega",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Draw the gene sets whose activities differ most: as bars for one group, as a heat map for several.

    Both show the effect, the difference of the mean activities of group and reference in standard deviations within the
    groups. Bars of sets that are called are orange where the set is higher in the group, blue where it is lower, and
    grey where they are not called. In the heat map a dot marks those called, and sets stand in the order of the groups
    that they are likeliest for.

    Parameters
    ----------
    adata
        Annotated data with a result of :func:`scanpy_scvi.tl.rank_activities`.
    group
        The group of the bars; by default all groups in a heat map, or the only one in bars.
    n_sets
        Sets to draw: by default 15 in bars, 4 for each group in a heat map.
    key
        Key of the result in `uns`.
    ax
        Axes to draw in; by default those of a new figure.
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
        Where there is no such result or group.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.cell_lines()
    >>> sv.tl.ldvae(adata, max_epochs=2, progress=False)
    >>> sv.tl.rank_activities(adata, "cell_type", key="ldvae")
    >>> ax = sv.pl.activities(adata, "A549", n_sets=3, key="rank_activities_ldvae", show=False)
    >>> len(ax.get_yticklabels())
    3
    """
    groups = [str(g) for g in stored_activities(adata, key)["group"].cat.categories]
    if group is None and len(groups) > 1:
        drawn = _heat_map(ax, get.rank_activities_df(adata, key=key), groups, 4 if n_sets is None else n_sets)
    else:
        table = get.rank_activities_df(adata, groups[0] if group is None else group, key=key)
        drawn = _bars(ax, table.head(15 if n_sets is None else n_sets))
    return finish(drawn, "activities", show=show, save=save, return_fig=return_fig)


def _bars(ax: Axes | None, table: pd.DataFrame) -> Axes:
    """Effects of one group's sets, the likeliest on top."""
    names = table["names"].astype(str).to_list()
    ax = take_axes(ax, (3.2 + LETTER * max(map(len, names)), 1.0 + 0.21 * len(names)))
    effect, called = table["effect"].to_numpy(), table["is_different"].to_numpy()
    color = np.where(called, np.where(effect > 0, ORANGE, BLUE), GREY)
    ax.barh(np.arange(len(names)), effect, color=color, height=0.75)
    ax.axvline(0, color=GREY, linewidth=0.8)
    ax.set_yticks(np.arange(len(names)), names, fontsize=8)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    reference = str(table["reference"].iloc[0])
    against = "all others" if reference == "rest" else reference
    ax.set_title(f"{table['group'].iloc[0]} against {against}", fontsize=10)
    ax.set_xlabel("effect (standard deviations)")
    return ax


def _heat_map(ax: Axes | None, table: pd.DataFrame, groups: list[str], n_sets: int) -> Axes:
    """Effects of the best sets of every group, in all groups."""
    table = table.astype({"names": str, "group": str})
    best = table.groupby("group", sort=False).head(n_sets).set_index("group")["names"]
    names = list(dict.fromkeys(name for group in groups for name in best.loc[[group]]))
    effect, called = (
        table.pivot_table(index="names", columns="group", values=column, aggfunc="first").loc[names, groups].to_numpy()
        for column in ("effect", "is_different")
    )
    size = (
        2.0 + LETTER * max(map(len, names)) + 0.28 * len(groups),
        0.8 + LETTER * max(map(len, groups)) + 0.2 * len(names),
    )
    ax = take_axes(ax, size)
    limit = float(np.abs(effect).max()) or 1.0
    image = ax.imshow(effect, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    rows, columns = np.nonzero(called.astype(bool))
    ax.scatter(columns, rows, s=22, color=BLACK, edgecolors="white", linewidths=0.8)
    ax.set_yticks(np.arange(len(names)), names, fontsize=8)
    ax.set_xticks(np.arange(len(groups)), groups, fontsize=8, rotation=90)
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_visible(False)
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, aspect=15, pad=0.02)
    bar.set_label("effect (sd)", fontsize=8)
    bar.outline.set_visible(False)
    return ax
