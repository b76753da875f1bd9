"""What the factors of a linear decoder are made of, and where they are."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ._axes import BLUE, GREY, ORANGE, finish, take_axes
from ._embedding import coordinates, scatter_values
from ._panels import random_order, take_panels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 6
"""Factors drawn where none are named."""
EDGE = 0.99
"""Quantile of the sizes of a factor at which the colours of a map end."""
LETTERS = 32
"""Longest line of a title."""


class Factors(NamedTuple):
    """Linear decoder's factors as a fit stored them."""

    names: list[str]
    loadings: np.ndarray
    """Modelled genes x factors."""
    genes: np.ndarray
    """Names of the modelled genes."""
    share: np.ndarray
    """Of the explained variance."""


def loadings(
    adata: AnnData,
    factors: Sequence[int | str] | None = None,
    *,
    n_genes: int = 10,
    basis: str | None = None,
    key: str = "ldvae",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | bool | None = None,
    return_fig: bool = False,
) -> Axes | list[Axes] | Figure | None:
    """Draw the genes with the largest loadings of each factor, and where in a map of the cells the factor is high.

    A bar to the right is a gene whose share rises with the factor: by ``exp(loading)`` for one step, beside what all
    genes have in common. The title says how much of the variance of all factors together is this one's.

    Parameters
    ----------
    adata
        Annotated data with a fit by :func:`scanpy_scvi.tl.ldvae` or :func:`scanpy_scvi.tl.vega`.
    factors
        Numbers of the factors, from 0 as the columns of ``obsm["X_ldvae"]``, or names of gene sets; by default the six
        that explain most.
    n_genes
        Genes of each factor, those with the largest loadings of either sign.
    basis
        Map to draw the factors in, beside the genes, such as ``"umap"``.
    key
        The ``key_added`` of the fit.
    ax
        Axes for the genes of a single factor; by default those of a new figure.
    show
        Whether to show the figure at once; ``None`` follows ``sc.settings.autoshow``.
    save
        Whether to save the figure under ``sc.settings.figdir``; a string is added to the file's name.
    return_fig
        Whether to return the figure in place of its axes.

    Returns
    -------
    The axes (of the genes, and with `basis` of the map behind them, factor by factor), `ax` where it was given, the
    figure, or ``None`` where it was shown.

    Raises
    ------
    KeyError
        Where there are no loadings of that key, no such factor or no such map.
    ValueError
        If `ax` is given and there is more to draw than one factor's genes.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.cell_lines()
    >>> sv.tl.ldvae(adata, batch_key="batch", max_epochs=2, progress=False)
    >>> len(sv.pl.loadings(adata, [0, 1, 2], show=False))
    3
    """
    found = _read(adata, key)
    chosen = _choose(found, factors, key)
    if ax is not None:
        if len(chosen) > 1 or basis is not None:
            msg = "`ax` was passed, but more than the genes of one factor is to be drawn. Leave it out."
            raise ValueError(msg)
        drawn = _bars(take_axes(ax), found, chosen[0], n_genes)
        return finish(drawn, "loadings", show=show, save=save, return_fig=return_fig)
    height = 0.9 + 0.19 * n_genes
    if basis is None:
        panels = take_panels(len(chosen), 3, (2.9, height))
        for panel, factor in zip(panels, chosen, strict=True):
            _bars(panel, found, factor, n_genes)
    else:
        at = coordinates(adata, basis, "Pass the name of a map, such as that of sc.tl.umap.")
        z = np.asarray(adata.obsm[f"X_{key}"], float)
        panels = take_panels(2 * len(chosen), 4, (2.9, height))
        for i, factor in enumerate(chosen):
            _bars(panels[2 * i], found, factor, n_genes)
            _map(panels[2 * i + 1], at, z[:, factor], found.names[factor])
    return finish(panels, "loadings", show=show, save=save, return_fig=return_fig)


def _read(adata: AnnData, key: str) -> Factors:
    """What the fit stored, or raise a KeyError."""
    slot = f"{key}_loadings"
    if slot not in adata.varm:
        msg = f"adata.varm has no {slot!r}. Pass the `key` of a fit by sv.tl.ldvae or sv.tl.vega."
        raise KeyError(msg)
    values, modelled = np.asarray(adata.varm[slot], float), adata.var[f"{key}_modelled"].to_numpy()
    entry: Mapping = adata.uns.get(key, {})
    n = values.shape[1]
    names = [str(name) for name in entry.get("gene_sets", [f"factor {i}" for i in range(n)])]
    share = np.asarray(entry.get("explained_variance_ratio", np.full(n, np.nan)), float)
    return Factors(names, values[modelled], adata.var_names[modelled].to_numpy(), share)


def _choose(found: Factors, factors: Sequence[int | str] | None, key: str) -> list[int]:
    """Columns of the factors asked for."""
    if factors is None:
        return [int(i) for i in np.argsort(-found.share, kind="stable")[:MOST]]
    wanted = [factors] if isinstance(factors, (int, str)) else list(factors)
    columns = [found.names.index(f) if f in found.names else f for f in wanted]
    unknown = [f for f, column in zip(wanted, columns, strict=True) if column not in range(len(found.names))]
    if unknown or not columns:
        msg = (
            f"`factors` has {', '.join(map(repr, unknown)) or 'nothing'}, but names or numbers from 0 to "
            f"{len(found.names) - 1} of the factors of {key!r} were expected."
        )
        raise KeyError(msg)
    return [int(column) for column in dict.fromkeys(columns)]


def _bars(ax: Axes, found: Factors, factor: int, n_genes: int) -> Axes:
    """Draw the largest loadings of one factor, rising from below."""
    values = found.loadings[:, factor]
    rows = np.argsort(-np.abs(values), kind="stable")[:n_genes]
    rows = rows[values[rows] != 0]  # a gene set may have fewer genes
    rows = rows[np.argsort(values[rows], kind="stable")]
    ax.barh(np.arange(len(rows)), values[rows], color=np.where(values[rows] > 0, ORANGE, BLUE), height=0.75)
    ax.axvline(0, color=GREY, linewidth=0.8)
    ax.set_yticks(np.arange(len(rows)), found.genes[rows], fontsize=8)
    ax.set_ylim(-0.6, max(len(rows), 1) - 0.4)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=8)
    ax.set_xlabel("loading", fontsize=9)
    share = f" ({found.share[factor]:.0%})" if np.isfinite(found.share[factor]) else ""
    ax.set_title(_wrapped(found.names[factor]) + share, fontsize=9)
    return ax


def _map(ax: Axes, at: np.ndarray, values: np.ndarray, name: str) -> None:
    """Cells in a map, coloured by one factor."""
    limit = float(np.quantile(np.abs(values), EDGE)) or 1.0
    scatter_values(
        ax, at, values, order=random_order(len(at)), cmap="coolwarm", limits=(-limit, limit)
    )  # its middle is no white
    ax.set_title(_wrapped(name), fontsize=9)


def _wrapped(name: str) -> str:
    """A name in lines; those of gene sets have no spaces to break at."""
    return fill(name.replace("_", " "), LETTERS)
