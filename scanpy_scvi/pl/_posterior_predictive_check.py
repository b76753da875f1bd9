"""Counts beside those that a model draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ._axes import BLACK, BLUE, GREY, ORANGE, PALETTE, finish, take_axes
from ._panels import take_panels

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = {
    "mean": "mean",
    "variance": "variance",
    "zero_fraction": "fraction of zeros",
    "cv": "coefficient of variation",
}
LOGARITHMIC = {"mean", "variance", "cv"}
COLORS = (BLACK, *PALETTE[2:4], PALETTE[5])
MARKERS = ("o", "s", "^", "D")


def posterior_predictive_check(
    adata: AnnData,
    key: str = "scvi_ppc",
    *,
    ax: Sequence[Axes] | None = None,
    show: bool | None = None,
    save: str | bool | None = None,
    return_fig: bool = False,
) -> list[Axes] | Figure | None:
    """Draw what :func:`scanpy_scvi.tl.posterior_predictive_check` found.

    Four panels show a statistic of each gene: observed, and averaged over the replicates. A gene on the dashed line is
    described; one in orange lies below or above all of its replicates. The fifth shows the share of counts inside
    predictive intervals against the level of the intervals, by the mean count of genes: above the line the model is
    less sure than it could be, below it too sure.

    Parameters
    ----------
    adata
        Annotated data with a result.
    key
        Key of the result in `uns`.
    ax
        Five axes to draw in; by default those of a new figure.
    show
        Whether to show the figure at once; ``None`` follows ``sc.settings.autoshow``.
    save
        Whether to save the figure under ``sc.settings.figdir``; a string is added to the file's name.
    return_fig
        Whether to return the figure in place of its axes.

    Returns
    -------
    List of five axes or the figure, or ``None`` where it was shown.

    Raises
    ------
    KeyError
        If there is no result under that key.
    ValueError
        If `ax` are not five.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=200, density=0.3)
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=5, progress=False)
    >>> sv.tl.posterior_predictive_check(adata, n_samples=10)
    >>> len(sv.pl.posterior_predictive_check(adata, show=False))
    5
    """
    result = _stored(adata, key)
    axes = _take(ax)
    edge = 1 / (int(result["params"]["n_samples"]) + 1)
    for panel, (name, words) in zip(axes, PANELS.items(), strict=False):
        _draw_statistic(panel, result["genes"], name, words, edge)
    _draw_calibration(axes[-1], result["calibration"])
    return finish(axes, "posterior_predictive_check", show=show, save=save, return_fig=return_fig)


def _stored(adata: AnnData, key: str) -> Mapping[str, Any]:
    """Return `adata.uns[key]`, or raise a KeyError that lists the keys of results."""
    fields = {"genes", "calibration", "params"}
    have = [k for k, v in adata.uns.items() if isinstance(v, Mapping) and fields <= set(v)]
    if key in have:
        return adata.uns[key]
    run = "Run sv.tl.posterior_predictive_check(adata, …) first"
    advice = f"Pass key={' or key='.join(map(repr, have))}" if have else run
    msg = f"adata.uns[{key!r}] holds no posterior predictive check. {advice}."
    raise KeyError(msg)


def _take(ax: Sequence[Axes] | None) -> list[Axes]:
    """Five axes, those given or those of a new figure."""
    n = len(PANELS) + 1
    if ax is None:
        return take_panels(n, 3, (3.5, 3.3))
    if len(ax) != n:
        msg = f"`ax` has {len(ax)} axes, but {n} were expected: for {', '.join(PANELS.values())}, and calibration."
        raise ValueError(msg)
    return [take_axes(a) for a in ax]


def _draw_statistic(ax: Axes, genes: pd.DataFrame, name: str, words: str, edge: float) -> None:
    """One point for each gene."""
    x, y, tail = (genes[name + suffix].to_numpy() for suffix in ("", "_replicated", "_tail"))
    shown = np.isfinite(x) & np.isfinite(y)
    if name in LOGARITHMIC:
        shown &= (x > 0) & (y > 0)
        ax.set(xscale="log", yscale="log")
    outside = (tail < 0.75 * edge) | (tail > 1 - 0.75 * edge)
    for part, color, label in ((shown & ~outside, BLUE, "among replicates"), (shown & outside, ORANGE, "outside")):
        ax.scatter(
            x[part], y[part], s=5, color=color, alpha=0.6, linewidths=0, label=f"{label}: {part.sum()}", rasterized=True
        )
    low, high = ax.get_xlim()
    if shown.any():
        ax.axline((x[shown].min(),) * 2, (x[shown].max() * 1.001,) * 2, color=GREY, linestyle="--", zorder=0)
    ax.set(xlim=(low, high), title=words, xlabel="observed", ylabel="replicated")
    ax.legend(frameon=False, markerscale=3, loc="upper left", handletextpad=0.1, borderaxespad=0.1)


def _draw_calibration(ax: Axes, calibration: pd.DataFrame) -> None:
    """One curve for each group of genes."""
    groups = list(dict.fromkeys(calibration["genes"]))
    ax.plot([0, 1], [0, 1], color=GREY, linestyle="--", zorder=0)
    for group, color, marker in zip(groups, COLORS, MARKERS, strict=False):
        rows = calibration[calibration["genes"] == group]
        ax.plot(rows["level"], rows["coverage"], color=color, marker=marker, markersize=4, linewidth=1, label=group)
    ax.set(xlim=(0, 1), ylim=(0, 1), title="predictive intervals", xlabel="level", ylabel="share of counts inside")
    ax.legend(frameon=False, loc="lower right", borderaxespad=0.1)
