"""The course of a fit, as curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import get
from ._axes import BLACK, BLUE, GREY, ORANGE, finish, take_axes
from ._panels import stacked_panels

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMALL = (("kl", "KL (nats)"), ("kl_weight", "KL weight"), ("learning_rate", "learning rate"))
"""Columns drawn below the bound, and their names."""


def history(
    adata: AnnData,
    key: str = "scvi",
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | bool | None = None,
    return_fig: bool = False,
) -> Axes | list[Axes] | Figure | None:
    """Draw the course of a fit: bound of training and held-out cells, KL divergence and learning rate per epoch.

    The epoch whose weights were kept is marked, and the title says how the fit ended. The axis of the bound leaves out
    the first, steep epochs where they would hide everything else. The weight of the KL is drawn where it changes.

    Parameters
    ----------
    adata
        Annotated data with a fit.
    key
        The ``key_added`` of the fit.
    ax
        Axes to draw the bound in, and nothing else; by default all panels of a new figure.
    show
        Whether to show the figure at once; ``None`` follows ``sc.settings.autoshow``.
    save
        Whether to save the figure under ``sc.settings.figdir``; a string is added to the file's name.
    return_fig
        Whether to return the figure in place of its axes.

    Returns
    -------
    The axes of all panels, or `ax` where it was given, or the figure, or ``None`` where it was shown.

    Raises
    ------
    KeyError
        If there is no fit under that key.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=200, density=0.3)
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=5, progress=False)
    >>> [ax.get_ylabel() for ax in sv.pl.history(adata, show=False)]
    ['ELBO (nats per cell)', 'KL (nats)', 'learning rate']
    """
    table, end = get.history(adata, key), get.convergence(adata, key)
    title = f"{key}: {end['verdict']}"
    if ax is not None:
        _draw_bound(take_axes(ax), table, end).set(xlabel="epoch", title=title)
        return finish(ax, "history", show=show, save=save, return_fig=return_fig)
    small = [(name, label) for name, label in SMALL if name in table and _worth_drawing(name, table[name])]
    panels = stacked_panels([3.0] + [1.1] * len(small), width=5)
    _draw_bound(panels[0], table, end).set_title(title)
    for panel, (name, label) in zip(panels[1:], small, strict=True):
        panel.plot(table.index, table[name], color=BLUE)
        panel.set_ylabel(label)
        panel.set_ylim(bottom=0)
    for panel in panels:
        panel.axvline(int(end["best_epoch"]), color=GREY, linestyle=":", linewidth=1, zorder=0)
    panels[-1].set_xlabel("epoch")
    panels[0].figure.align_ylabels(panels)
    return finish(panels, "history", show=show, save=save, return_fig=return_fig)


def _worth_drawing(name: str, values: pd.Series) -> bool:
    """Whether a panel would show anything; a weight of one throughout is the rule."""
    return bool(values.notna().any()) and (name != "kl_weight" or values.nunique() > 1)


def _draw_bound(ax: Axes, table: pd.DataFrame, end: Mapping[str, Any]) -> Axes:
    """Draw the bound of training and held-out cells, and mark the epoch that was kept."""
    ax.plot(table.index, table["train_elbo"], color=BLUE, label="training cells")
    if table["validation_elbo"].notna().any():
        ax.plot(table.index, table["validation_elbo"], color=ORANGE, label="held-out cells")
    best = int(end["best_epoch"])
    ax.plot([best], [end["best_elbo"]], "o", color=BLACK, label=f"kept: epoch {best}, {end['best_elbo']:.1f}")
    curves = table[["train_elbo", "validation_elbo"]].to_numpy()
    if np.isfinite(curves).sum() > 1:
        ax.set_ylim(_limits(curves[np.isfinite(curves)]))
    ax.set_ylabel("ELBO (nats per cell)")
    ax.legend(frameon=False, loc="lower right")
    return ax


def _limits(values: np.ndarray) -> tuple[float, float]:
    """From the lowest tenth, or the lowest value where that is not far below it, to the highest value."""
    low, tenth, high = values.min(), np.quantile(values, 0.1), values.max()
    low = low if high - low < 1.5 * (high - tenth) else tenth
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin
