"""Fold changes with their credible intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D

from ._axes import BLACK, BLUE, GREY, ORANGE, finish, take_axes
from ._ranking import KEY, both_ends, comparison, one_group, option, positions_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAND = "#EEEEEE"


def effect(
    adata: AnnData,
    group: str | None = None,
    *,
    genes: Sequence[str] | None = None,
    n_genes: int = 10,
    key: str = KEY,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Draw the log2 fold changes of genes with their credible intervals, largest on top.

    The point is the posterior median, filled where the gene is called. The band covers changes too small to count. The
    intervals hold cell by cell: they tell how much two cells differ, one of the group and one of the reference, so they
    do not shrink with the number of cells.

    Parameters
    ----------
    adata
        Annotated data with a result of :func:`scanpy_scvi.tl.rank_genes_groups`.
    group
        The group; may be left out where there is but one.
    genes
        Genes to draw.
    n_genes
        Genes from each end of the ranking, where `genes` are not given.
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
        Where there is no such result, group or gene.
    ValueError
        If `group` is left out and there are several.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.cell_lines()
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=2, progress=False)
    >>> sv.tl.rank_genes_groups(adata, "cell_type", groups=["A549"], n_samples=200)
    >>> ax = sv.pl.effect(adata, "A549", genes=["KRT81", "AKR1B10"], show=False)
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['AKR1B10', 'KRT81']
    """
    table = one_group(adata, group, key)
    rows = both_ends(len(table), n_genes) if genes is None else positions_of(table, genes)
    table = table.iloc[rows].sort_values("lfc_median", ascending=False, kind="stable")
    y = np.arange(len(table))
    median, called = table["lfc_median"].to_numpy(float), table["is_de"].to_numpy()
    colors = [GREY if not c else ORANGE if m > 0 else BLUE for c, m in zip(called, median, strict=True)]
    faces = [color if c else "white" for c, color in zip(called, colors, strict=True)]
    ax = take_axes(ax, (5, 1.0 + 0.21 * len(table)))
    delta = float(table["delta"].iloc[0])
    if delta > 0:
        ax.axvspan(-delta, delta, color=BAND, linewidth=0, zorder=0)
    ax.axvline(0, color=GREY, linewidth=0.8, zorder=0.5)
    ax.hlines(y, table["lfc_low"], table["lfc_high"], colors=colors, linewidth=1.5)
    ax.scatter(median, y, s=28, c=faces, edgecolors=colors, linewidths=1.2, zorder=3)
    ax.set_yticks(y, table["names"].astype(str))
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    mass = option(adata, key, "interval", None)
    interval = f"{100 * mass:g} % " if mass else ""
    ax.set(xlabel=f"log2 fold change, {interval}interval", title=comparison(table))
    if 0 < called.sum() < len(called):
        look: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 5, "markeredgecolor": BLACK}
        marks = [
            Line2D([], [], markerfacecolor=c, label=t, **look) for c, t in ((BLACK, "called"), ("white", "not called"))
        ]
        ax.legend(handles=marks, frameon=False, loc="lower right", handletextpad=0.2)
    return finish(ax, "effect", show=show, save=save, return_fig=return_fig)
