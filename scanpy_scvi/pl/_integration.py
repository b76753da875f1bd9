"""Before and after integration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from ._axes import BLACK, BLUE, GREY, finish, take_axes
from ._embedding import coordinates, legend_of, scatter_groups
from ._groups import read_groups

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STAGES = ("before", "after")
SCORES = {"label_score": "label kept", "batch_mixing": "neighbours of\nthe same batch"}


def integration(
    adata: AnnData,
    *,
    before_basis: str | None = None,
    after_basis: str | None = None,
    key: str = "scvi_integration",
    show: bool | None = None,
    save: str | bool | None = None,
    return_fig: bool = False,
) -> list[Axes] | Figure | None:
    """Draw embeddings before and after integration, coloured by batch and by label, and the scores of both.

    Parameters
    ----------
    adata
        Annotated data with the result of :func:`scanpy_scvi.tl.integration_scores`.
    before_basis, after_basis
        Embeddings in `obsm`, with or without ``X_``; by default what
        :func:`scanpy_scvi.tl.integration_scores` wrote with ``umap=True``.
    key
        The ``key_added`` of :func:`scanpy_scvi.tl.integration_scores`.
    show
        Whether to show the figure at once; ``None`` follows ``sc.settings.autoshow``.
    save
        Whether to save the figure under ``sc.settings.figdir``; a string is added to the file's name.
    return_fig
        Whether to return the figure in place of its axes.

    Returns
    -------
    The axes as a list (before and after by batch, before and after by label where there is one, scores) or the figure,
    or ``None`` where it was shown.

    Raises
    ------
    KeyError
        If there are no scores under that key, or no such embedding.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.cell_lines()
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=5, progress=False)
    >>> sv.tl.integration_scores(adata, label_key="cell_type", before="X_scvi")
    >>> len(sv.pl.integration(adata, before_basis="X_scvi", after_basis="X_scvi", show=False))
    5
    """
    entry = adata.uns.get(key)
    if not (isinstance(entry, Mapping) and {"table", "params"} <= set(entry)):
        msg = f"`adata.uns[{key!r}]` holds no scores. Run sv.tl.integration_scores first, or pass its `key_added`."
        raise KeyError(msg)
    params = entry["params"]
    given = dict(zip(STAGES, (before_basis, after_basis), strict=True))
    advice = "Run sv.tl.integration_scores with `umap=True`, or name embeddings with `before_basis` and `after_basis`."
    at = {s: coordinates(adata, given[s] or f"X_umap_{params['key']}_{s}", advice) for s in STAGES}
    columns = [str(params[name]) for name in ("batch_key", "label_key") if name in params]
    figure = plt.figure(figsize=(8.5, 3.2 * len(columns) + 1.6), layout="constrained")
    grid = figure.add_gridspec(len(columns) + 1, 2, height_ratios=[3.2] * len(columns) + [1.2])
    axes = []
    for row, column in enumerate(columns):
        groups = read_groups(adata, column)
        for place, stage in enumerate(STAGES):
            ax = figure.add_subplot(grid[row, place])
            scatter_groups(ax, at[stage], groups)
            if row == 0:
                ax.set_title(stage)
            axes.append(ax)
        legend_of(axes[-1], groups, column)
    axes.append(figure.add_subplot(grid[-1, :]))
    _draw_scores(axes[-1], entry["table"])
    return finish(axes, "integration", show=show, save=save, return_fig=return_fig)


def _draw_scores(ax: Axes, table: pd.DataFrame) -> None:
    """One line for each score, from before to after, and the ideal."""
    take_axes(ax)
    names = [name for name in SCORES if name in table]
    y = np.arange(len(names))[::-1]
    before, after = (table.loc[stage, names].to_numpy(float) for stage in STAGES)
    ax.hlines(y, before, after, color=GREY, linewidth=1.5, zorder=1)
    ax.plot(before, y, "o", color=GREY, markersize=11, markerfacecolor="none", mew=2, label="before")
    ax.plot(after, y, "o", color=BLUE, label="after")
    where = y[names.index("batch_mixing")]
    ax.plot([table.loc["after", "ideal"]], [where], "|", color=BLACK, markersize=18, mew=2, label="ideal mixing")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.6, len(names) - 0.4), yticks=y, yticklabels=[SCORES[name] for name in names])
    ax.set_xlabel("share")
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
