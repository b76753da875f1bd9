"""Fold change and evidence of every gene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from ._axes import BLACK, BLUE, GREY, ORANGE, finish, take_axes
from ._labels import label_points
from ._ranking import KEY, both_ends, comparison, one_group, option, positions_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EVIDENCE = {
    "ratio": "|log2 fold change| / posterior sd",
    "probability": "−log10 posterior probability of no change",
}


def volcano(
    adata: AnnData,
    group: str | None = None,
    *,
    genes: Sequence[str] | None = None,
    n_genes: int = 8,
    evidence: Literal["ratio", "probability"] = "ratio",
    key: str = KEY,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Draw the evidence that a gene changes against its mean log2 fold change.

    Genes that are called are coloured, and the best of them named. Dashed lines mark the smallest change that counts.

    The axis of evidence is the size of the fold change in posterior standard deviations. A posterior probability is at
    least one in the number of draws, where the best genes all lie on one line: `evidence="probability"` shows it, with
    that limit marked.

    Parameters
    ----------
    adata
        Annotated data with a result of :func:`scanpy_scvi.tl.rank_genes_groups`.
    group
        The group; may be left out where there is but one.
    genes
        Genes to name, called or not.
    n_genes
        Called genes to name in each direction, best first, where `genes` are not given.
    evidence
        What is drawn upwards: fold change over its standard deviation, or the posterior probability.
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
    The axes or the figure, or ``None`` where it was shown. Names are placed by adjustText where it is installed (the
    extra ``plot``), and in the first free place otherwise.

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
    >>> sv.pl.volcano(adata, "A549", show=False).get_xlabel()
    'log2 fold change, A549 against all others'
    """
    if evidence not in EVIDENCE:
        msg = f"`evidence` is {evidence!r}, but one of {', '.join(map(repr, EVIDENCE))} was expected."
        raise ValueError(msg)
    table = one_group(adata, group, key)
    x, y = table["lfc_mean"].to_numpy(float), _height(table, evidence)
    up, called = x > 0, table["is_de"].to_numpy()
    ax = take_axes(ax, (6, 4.5))
    for chosen, color, label in (
        (~called, GREY, "not called"),
        (called & up, ORANGE, "up"),
        (called & ~up, BLUE, "down"),
    ):
        label = f"{label}: {chosen.sum():,}"
        size = 7 if color == GREY else 12
        ax.scatter(x[chosen], y[chosen], s=size, color=color, linewidths=0, alpha=0.7, label=label)
    delta = float(table["delta"].iloc[0])
    for limit in (-delta, delta) if delta > 0 else ():
        ax.axvline(limit, color=GREY, linestyle="--", linewidth=0.8, zorder=0)
    ax.set(xlabel=f"log2 fold change, {comparison(table)}", ylabel=EVIDENCE[evidence])
    ax.margins(0.08)
    ax.set_ylim(bottom=0)
    if evidence == "probability":
        _mark_limit(ax, y, option(adata, key, "n_samples", 0))
    ax.legend(frameon=False, markerscale=2, loc="upper left", bbox_to_anchor=(1, 1), handletextpad=0.2)
    found = np.flatnonzero(called)  # the best of those up come first, the best of those down last
    named = found[both_ends(len(found), n_genes)] if genes is None else positions_of(table, genes)
    ax.scatter(x[named], y[named], s=12, facecolors="none", edgecolors=BLACK, linewidths=0.8)
    points = np.c_[x, y]
    label_points(ax, points[named], table["names"].iloc[named].astype(str).to_list(), points[called])
    return finish(ax, "volcano", show=show, save=save, return_fig=return_fig)


def _height(table: pd.DataFrame, evidence: str) -> np.ndarray:
    if evidence == "probability":
        return -np.log10(table["proba_not_de"].to_numpy(float))
    sd = table["lfc_std"].to_numpy(float)
    return np.abs(table["lfc_mean"].to_numpy(float)) / np.where(sd > 0, sd, np.inf)


def _mark_limit(ax: Axes, heights: np.ndarray, n_draws: int) -> None:
    """Say where genes lie that never failed to differ."""
    limit = np.log10(n_draws + 1)
    if n_draws and len(heights) and heights.max() > 0.999 * limit:
        ax.axhline(limit, color=GREY, linestyle=":", linewidth=0.8, zorder=0, label=f"limit of {n_draws:,} draws")
