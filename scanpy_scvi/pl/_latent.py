"""The latent space, dimension by dimension."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from ._axes import finish
from ._groups import read_groups
from ._latent_heatmap import draw_heatmap
from ._latent_pairs import draw_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("pairs", "heatmap")
MOST_PAIRS = 4
"""Dimensions of a pair grid, where none are named."""


def latent(
    adata: AnnData,
    groupby: str | None = None,
    *,
    kind: Literal["pairs", "heatmap"] = "pairs",
    dims: Sequence[int] | None = None,
    key: str = "scvi",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | bool | None = None,
    return_fig: bool = False,
) -> Axes | list[Axes] | Figure | None:
    """Draw the latent space itself, not a map of it: pairs of its dimensions, or their means by group.

    Dimensions are counted from 0, as the columns of ``obsm["X_scvi"]``. Under the prior each has a mean of 0 and a
    standard deviation of 1; one that the fit does not use stays at 0 for all cells.

    Parameters
    ----------
    adata
        Annotated data with a fit.
    groupby
        Column of `obs` whose groups give the colours, or the rows of the heat map.
    kind
        ``"pairs"`` draws cells in every pair of dimensions, with histograms on the diagonal. ``"heatmap"`` draws the
        mean of every dimension in every group, similar groups and the dimensions that tell them side by side.
    dims
        Dimensions to draw: by default the four, or for a heat map all, whose posterior means vary most.
    key
        The ``key_added`` of the fit.
    ax
        Axes for a heat map; by default those of a new figure.
    show
        Whether to show the figure at once; ``None`` follows ``sc.settings.autoshow``.
    save
        Whether to save the figure under ``sc.settings.figdir``; a string is added to the file's name.
    return_fig
        Whether to return the figure in place of its axes.

    Returns
    -------
    The axes, row by row in a pair grid, or the figure, or ``None`` where it was shown.

    Raises
    ------
    KeyError
        If there is no latent space of that key, or no such column.
    ValueError
        For another `kind`, a dimension that is not there, a heat map without `groupby`, or pairs with `ax`.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.cell_lines()
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=2, progress=False)
    >>> len(sv.pl.latent(adata, "cell_type", dims=[0, 1, 2], show=False))
    6
    """
    if kind not in KINDS:
        msg = f"`kind` is {kind!r}, but one of {', '.join(map(repr, KINDS))} was expected."
        raise ValueError(msg)
    if kind == "heatmap" and groupby is None:
        msg = '`kind="heatmap"` needs the groups whose means are drawn. Pass `groupby`.'
        raise ValueError(msg)
    if kind == "pairs" and ax is not None:
        msg = '`ax` was passed, but `kind="pairs"` makes a figure of its own. Leave it out.'
        raise ValueError(msg)
    z = _read(adata, key)
    groups = None if groupby is None else read_groups(adata, groupby)
    if groups is not None and kind == "heatmap":
        chosen = _dims(z, dims, z.shape[1])
        heatmap = draw_heatmap(ax, z, chosen, groups, keep_order=dims is not None)
        return finish(heatmap, "latent", show=show, save=save, return_fig=return_fig)
    panels = draw_pairs(z, _dims(z, dims, MOST_PAIRS), groups, groupby)
    return finish(panels, "latent", show=show, save=save, return_fig=return_fig)


def _read(adata: AnnData, key: str) -> np.ndarray:
    name = f"X_{key}"
    if name not in adata.obsm:
        msg = f"adata.obsm has no {name!r}. Pass the `key_added` of a fit as `key`, or run sv.tl.scvi first."
        raise KeyError(msg)
    return np.asarray(adata.obsm[name], float)


def _dims(z: np.ndarray, dims: Sequence[int] | None, most: int) -> list[int]:
    """Dimensions to draw, the most variable first where none are named."""
    if dims is None:
        return [int(d) for d in np.argsort(-z.var(axis=0), kind="stable")[:most]]
    unknown = [d for d in dims if d not in range(z.shape[1])]
    if unknown or not len(dims):
        msg = f"`dims` is {list(dims)}, but whole numbers from 0 to {z.shape[1] - 1} were expected."
        raise ValueError(msg)
    return [int(d) for d in dict.fromkeys(dims)]
