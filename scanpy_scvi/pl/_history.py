"""The course of a fit, as a curve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import get
from ._axes import BLACK, BLUE, ORANGE, finish, take_axes

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def history(
    adata: AnnData,
    key: str = "scvi",
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Draw the training curve: ELBO of training and held-out cells per epoch.

    The epoch whose weights were kept is marked, and the title says how the fit ended. The vertical axis leaves out the
    first, steep epochs where they would hide everything else.

    Parameters
    ----------
    adata
        Annotated data with a fit.
    key
        The ``key_added`` of the fit.
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
        If there is no fit under that key.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=200, density=0.3)
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=5, progress=False)
    >>> sv.pl.history(adata, show=False).get_xlabel()
    'epoch'
    """
    table, end = get.history(adata, key), get.convergence(adata, key)
    ax = take_axes(ax)
    ax.plot(table.index, table["train_elbo"], color=BLUE, label="training cells")
    if table["validation_elbo"].notna().any():
        ax.plot(table.index, table["validation_elbo"], color=ORANGE, label="held-out cells")
    best = int(end["best_epoch"])
    ax.plot([best], [end["best_elbo"]], "o", color=BLACK, label=f"kept: epoch {best}, {end['best_elbo']:.1f}")
    curves = table[["train_elbo", "validation_elbo"]].to_numpy()
    if np.isfinite(curves).sum() > 1:
        ax.set_ylim(_limits(curves[np.isfinite(curves)]))
    ax.set(xlabel="epoch", ylabel="ELBO (nats per cell)", title=f"{key}: {end['verdict']}")
    ax.legend(frameon=False, loc="lower right")
    return finish(ax, "history", show=show, save=save, return_fig=return_fig)


def _limits(values: np.ndarray) -> tuple[float, float]:
    """From the lowest tenth, or the lowest value where that is not far below it, to the highest value."""
    low, tenth, high = values.min(), np.quantile(values, 0.1), values.max()
    low = low if high - low < 1.5 * (high - tenth) else tenth
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin
