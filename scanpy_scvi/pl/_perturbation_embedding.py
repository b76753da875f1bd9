"""Perturbations as points: those with similar effects lie together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from matplotlib.lines import Line2D

from .. import get
from ..get._perturbation_tables import perturbation_fit
from ._axes import BLACK, BLUE, GREY, finish, take_axes
from ._labels import label_points
from ._svae_targets import chosen, read_strip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AREAS = (12.0, 160.0)
"""Areas of the smallest and of the largest point, in squares of a point."""
NULLS = "#BBBBBB"
APART = 0.06
"""Least distance between two points that are named, as a share of the width and height of all."""


class Places(NamedTuple):
    """Where perturbations and null splits are, each n x 2, and the names of the axes."""

    perturbations: np.ndarray
    nulls: np.ndarray
    axes: tuple[str, str]


def perturbation_embedding(
    adata: AnnData,
    *,
    basis: Literal["pca", "umap"] = "pca",
    groups: Mapping[str, str] | pd.Series | None = None,
    names: Sequence[str] | None = None,
    n_names: int = 20,
    random_state: int = 0,
    key: str = "svae",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Draw perturbations so that those with similar effects lie together, with the null splits in grey.

    The area of a point grows with the number of cells. Filled points have a target. Grey points are parts of the
    control that were treated as perturbations: an open point among them does nothing that could be told from chance,
    and a filled one differs along further axes.

    The principal axes (``basis="pca"``) are those of the shifts of targets, which come from the origin, where the
    control is, rather than from the mean. All shifts as estimated are drawn on them, those of closed gates included,
    since otherwise whatever has no target would lie on one point, and the null splits with it.

    Parameters
    ----------
    adata
        Annotated data with a fit by :func:`scanpy_scvi.tl.svae`.
    basis
        ``"pca"``, or ``"umap"`` of the shifts as estimated, in which distances mean little.
    groups
        Group of each perturbation by its name, such as the complex that the target belongs to, for the colour.
    names
        Perturbations to name; by default those with the largest effects, of what lies close together one.
    n_names
        How many, where `names` are not given.
    random_state
        Seed of the UMAP.
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
        If there is no fit with perturbations under that key, or no such perturbation.
    ValueError
        For another `basis`, or a UMAP of fewer than four points.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate_perturbations(n_perturbations=8, n_latent=3, cells_per_perturbation=30)
    >>> sv.tl.svae(adata, "perturbation", control="control", n_latent=3, max_epochs=5, progress=False)
    >>> sv.pl.perturbation_embedding(adata, show=False).get_xlabel()[:3]
    'PC1'
    """
    if basis not in ("pca", "umap"):
        msg = f"`basis` is {basis!r}, but 'pca' or 'umap' was expected."
        raise ValueError(msg)
    space, nulls = get.perturbations(adata, key), perturbation_fit(adata, key).nulls
    null_shifts = np.empty((0, space.n_vars)) if nulls is None else nulls.shifts
    at = _principal(space, null_shifts) if basis == "pca" else _umap(space, null_shifts, random_state)
    named = _spread(at.perturbations, space, n_names) if names is None else _asked(space, names, key)
    ax = take_axes(ax, (6.4, 4.6))
    _draw(ax, at, space, groups, None if nulls is None else nulls.cells)
    if basis == "umap":
        ax.set(xticks=[], yticks=[])
    n_cells = space.obs["n_cells"].to_numpy(float)
    crowd = np.concatenate([_rims(ax, at.perturbations, _areas(n_cells, n_cells.max())), at.nulls])
    label_points(ax, at.perturbations[named], list(space.obs_names[named]), crowd)
    return finish(ax, "perturbation_embedding", show=show, save=save, return_fig=return_fig)


def _draw(
    ax: Axes,
    at: Places,
    space: AnnData,
    groups: Mapping[str, str] | pd.Series | None,
    null_cells: np.ndarray | None,
) -> None:
    """Points, the null splits behind, and what they mean."""
    n_cells = space.obs["n_cells"].to_numpy(float)
    if null_cells is not None:
        areas = _areas(null_cells, n_cells.max())
        ax.scatter(at.nulls[:, 0], at.nulls[:, 1], s=areas, color=NULLS, linewidths=0, alpha=0.6, zorder=1)
    colors, marks = _colors(groups, list(space.obs_names))
    x, y = at.perturbations.T
    points = ax.scatter(x, y, s=_areas(n_cells, n_cells.max()), linewidths=0.9, zorder=2)
    has_target = (np.asarray(space.X) != 0).any(1)
    points.set_facecolor([color if full else "none" for color, full in zip(colors, has_target, strict=True)])
    points.set_edgecolor(colors)
    ax.set(xlabel=at.axes[0], ylabel=at.axes[1])
    ax.margins(0.08)
    _legend(ax, marks, n_cells, with_nulls=null_cells is not None)


def _principal(space: AnnData, nulls: np.ndarray) -> Places:
    """Project shifts as estimated on the first two principal axes of the effects, about the control."""
    effects, shifts = np.asarray(space.X, float), np.asarray(space.layers["shift"], float)
    seen = effects if effects.any() else shifts
    _, sizes, axes = np.linalg.svd(seen, full_matrices=False)
    axes = axes[:2] * np.where(axes[:2].sum(1, keepdims=True) < 0, -1, 1)  # a sign of its own for every library
    if len(axes) < 2:
        axes = np.vstack([axes, np.zeros_like(axes)])
    share = sizes**2 / (sizes**2).sum()
    first, second = (f"PC{i + 1} ({share[i] if i < len(share) else 0:.0%} of squared effects)" for i in range(2))
    return Places(shifts @ axes.T, nulls @ axes.T, (first, second))


def _umap(space: AnnData, nulls: np.ndarray, random_state: int) -> Places:
    """UMAP of the shifts as estimated, as scanpy computes it."""
    import anndata as ad
    import scanpy as sc

    rows = np.concatenate([np.asarray(space.layers["shift"]), nulls]).astype(np.float32)
    if len(rows) < 4:
        msg = f"There are {len(rows)} perturbations and null splits, too few for a UMAP. Pass basis='pca'."
        raise ValueError(msg)
    both = ad.AnnData(rows)
    sc.pp.neighbors(both, n_neighbors=min(15, len(rows) - 1), use_rep="X", random_state=random_state)
    sc.tl.umap(both, random_state=random_state)
    found = both.obsm["X_umap"]
    return Places(found[: space.n_obs], found[space.n_obs :], ("UMAP1", "UMAP2"))


def _areas(n_cells: np.ndarray, largest: float) -> np.ndarray:
    """Areas in proportion to the numbers of cells, but for the smallest."""
    areas: np.ndarray = np.clip(AREAS[1] * n_cells / largest, *AREAS)
    return areas


def _colors(groups: Mapping[str, str] | pd.Series | None, names: list[str]) -> tuple[list[str], list[Line2D]]:
    """Colour of each perturbation, black for those without a group, and the legend of the groups."""
    if groups is None:
        return [BLUE] * len(names), []
    strip = read_strip(groups, names)
    marks = [Line2D([], [], marker="o", linestyle="", color=c, label=group) for group, c in strip.colors.items()]
    return [BLACK if group is None else strip.colors[group] for group in strip.of_row], marks


def _legend(ax: Axes, groups: list[Line2D], n_cells: np.ndarray, *, with_nulls: bool) -> None:
    """What points, colours and areas mean."""
    kinds = [("has a target", BLACK, BLACK), ("has none", BLACK, "none")]
    kinds += [("null split", NULLS, NULLS)] if with_nulls else []
    marks = [
        Line2D([], [], marker="o", linestyle="", markeredgecolor=e, markerfacecolor=f, markersize=6, label=t)
        for t, e, f in kinds
    ]
    for n in np.unique(np.quantile(n_cells, [0.1, 0.5, 1.0], method="nearest")):
        size = float(np.sqrt(_areas(np.array([n]), n_cells.max())[0]))
        label = f"{int(n):,} cells"
        marks.append(Line2D([], [], marker="o", linestyle="", color=GREY, markersize=size, label=label))
    handles = marks + groups
    ax.legend(handles=handles, frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), labelspacing=0.8)


def _asked(space: AnnData, names: Sequence[str], key: str) -> np.ndarray:
    """Rows of the perturbations asked for."""
    found: np.ndarray = space.obs_names.get_indexer(chosen(space, names, key).obs_names)
    return found


def _spread(at: np.ndarray, space: AnnData, n: int) -> np.ndarray:
    """Rows of those with the largest effects, but for what lies close to one that is named."""
    effect = space.obs["effect"].to_numpy(float)
    scaled = at / np.maximum(np.ptp(at, axis=0), np.finfo(float).tiny)
    named: list[int] = []
    for i in np.argsort(-effect, kind="stable"):
        if len(named) < n and effect[i] > 0 and all(np.linalg.norm(scaled[i] - scaled[j]) > APART for j in named):
            named.append(int(i))
    return np.array(named, int)


def _rims(ax: Axes, at: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Points on the rims of large points, which names had better not hide either."""
    ax.figure.figure.draw_without_rendering()  # a constrained layout gives the axes their size only now
    angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    radii = np.sqrt(areas / np.pi)[:, None, None] * ax.figure.figure.dpi / 72
    around = ax.transData.transform(at)[:, None] + radii * np.c_[np.cos(angles), np.sin(angles)]
    return np.asarray(ax.transData.inverted().transform(around.reshape(-1, 2)))
