"""Denoised expression beside the counts that it was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy import ndimage

from ._axes import BLACK, BLUE, GREY, finish, take_axes
from ._groups import read_groups
from ._panels import take_panels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from ._groups import Groups

TARGET = 1e4
OWN, PER = "counts at the cell's own library size", "counts per "
ROOTS = "squared mean roots of "
"""Scales that a fit's own layer may be on, by `uns[key]["denoised_scale"]`; the words of `store.scale`."""
TICKS, DECADES = (0, 1, 3, 10, 30, 100), (0, 10, 100, 1000, 10000)
"""Labels of short axes, and of long ones."""
N_BINS = 200
SMOOTHING = 0.12
"""Standard deviation of the kernel of the densities, in natural logarithms."""
BELOW = 3 * SMOOTHING
"""Room under zero, where many counts lie."""
HALVES = ((-1, "raw", GREY, BLACK), (1, "denoised", BLUE, "white"))
"""Side, name, colour, and colour of the mean."""
HALF = 0.42
"""Largest width of half a violin; groups are 1 apart."""
MOST_SIDE_BY_SIDE = 24
"""Violins in a row of panels."""


class Expression(NamedTuple):
    """Counts per 10,000 of one gene."""

    raw: np.ndarray
    denoised: np.ndarray


def normalized(
    adata: AnnData,
    genes: Sequence[str] | str,
    *,
    groupby: str | None = None,
    key: str = "scvi",
    layer: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | bool | None = None,
    return_fig: bool = False,
) -> list[Axes] | Figure | None:
    """Draw raw against denoised expression of genes, one panel each, in counts per 10,000.

    With `groupby`, a violin for each group: the left half are the counts, the right half is what the model expects,
    with the mean of each as a point. Denoising should take the zeros and the spread, and leave the means about where
    they are; it moves them where it corrects for batches. Without `groupby`, each cell is a point.

    Counts are scaled by the cell's total over the modelled genes, and so is a layer of the fit that is on the scale of
    counts; another layer is taken to be per 10,000. Axes are those of log(1 + x).

    Parameters
    ----------
    adata
        Annotated data with a fit, its counts and its normalized expression.
    genes
        Genes to draw, one panel each.
    groupby
        Column of `obs` with the groups.
    key
        The ``key_added`` of the fit.
    layer
        Layer with the denoised expression; `f"{key}_normalized"` by default.
    ax
        Axes for a single gene; by default those of a new figure.
    show
        Whether to show the figure at once; ``None`` follows ``sc.settings.autoshow``.
    save
        Whether to save the figure under ``sc.settings.figdir``; a string is added to the file's name.
    return_fig
        Whether to return the figure in place of its axes.

    Returns
    -------
    The axes, one for each gene, or the figure, or ``None`` where it was shown.

    Raises
    ------
    KeyError
        If there is no fit under that key, no such layer or column, or a gene is not modelled.
    ValueError
        For several genes with `ax`.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.cell_lines()
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=2, progress=False)
    >>> [ax.get_title() for ax in sv.pl.normalized(adata, ["AKR1B10", "KRT81"], groupby="cell_type", show=False)]
    ['AKR1B10', 'KRT81']
    """
    genes = [genes] if isinstance(genes, str) else list(dict.fromkeys(genes))
    if ax is not None and len(genes) != 1:
        msg = f"`ax` is one panel, but {len(genes)} genes were passed. Pass one gene, or leave it out."
        raise ValueError(msg)
    values = _read(adata, genes, key, f"{key}_normalized" if layer is None else layer)
    groups = None if groupby is None else read_groups(adata, groupby)
    panels = _panels(len(genes), groups) if ax is None else [take_axes(ax)]
    for panel, gene, expression in zip(panels, genes, values, strict=True):
        if groups is None:
            _draw_cells(panel, expression)
        else:
            _draw_violins(panel, expression, groups)
        panel.set_title(gene)
    if groups is not None:
        _explain_halves(panels, own_figure=ax is None)
    return finish(panels, "normalized", show=show, save=save, return_fig=return_fig)


def _panels(n_genes: int, groups: Groups | None) -> list[Axes]:
    """Return a panel for each gene, with room for the names of the groups under the last row."""
    if groups is None:
        return take_panels(n_genes, 3, (3.0, 3.0))
    n = len(groups.names)
    n_columns = max(1, min(n_genes, 3, MOST_SIDE_BY_SIDE // n))
    n_rows = -(-n_genes // n_columns)
    written = 1 if n_rows == 1 or n_genes % n_columns == 0 else 2  # rows with names under some panel
    names = 0.08 * max(map(len, groups.names)) * written / n_rows
    return take_panels(n_genes, n_columns, (max(2.6, 0.9 + 0.3 * n), 2.0 + names), sharex=True)


def _read(adata: AnnData, genes: list[str], key: str, layer: str) -> list[Expression]:
    """Raw and denoised values of each gene."""
    modelled_key = f"{key}_modelled"
    if modelled_key not in adata.var:
        msg = f"adata.var has no {modelled_key!r}. Pass the `key_added` of a fit as `key`, or run sv.tl.scvi first."
        raise KeyError(msg)
    if layer not in adata.layers:
        msg = f"adata.layers has no {layer!r}. Run sv.tl.normalized_expression, or pass its `key_added` as `layer`."
        raise KeyError(msg)
    modelled = adata.var[modelled_key].to_numpy(bool)
    missing = [gene for gene in genes if gene not in adata.var_names[modelled]]
    if missing:
        msg = f"Not modelled: {', '.join(map(repr, missing[:5]))}. adata.var[{modelled_key!r}] tells which genes are."
        raise KeyError(msg)
    counts_layer = adata.uns.get(key, {}).get("params", {}).get("layer")
    counts = adata.X if counts_layer is None else adata.layers[counts_layer]
    total = np.asarray(counts @ modelled.astype(np.float32), float).ravel()
    chosen = adata[:, genes]
    raw = chosen.to_df(counts_layer).to_numpy(float) * (TARGET / np.where(total > 0, total, 1))[:, None]
    denoised = chosen.to_df(layer).to_numpy(float) * _to_target(adata, key, layer, total)
    if np.isnan(denoised).all(axis=0).any():
        msg = f"adata.layers[{layer!r}] was made without some of the genes {genes}. Run sv.tl.normalized_expression."
        raise KeyError(msg)
    return [Expression(raw[:, i], denoised[:, i]) for i in range(len(genes))]


def _to_target(adata: AnnData, key: str, layer: str, total: np.ndarray) -> np.ndarray:
    """Factors that bring the values of each cell to counts per 10,000, (n_cells, 1) or (1, 1)."""
    scale = adata.uns.get(key, {}).get("denoised_scale")
    if scale is None or layer != f"{key}_normalized":
        return np.ones((1, 1))
    scale = str(scale).removeprefix(ROOTS)
    if scale == OWN:
        return (TARGET / np.where(total > 0, total, 1))[:, None]
    return np.full((1, 1), TARGET / float(scale.removeprefix(PER).replace(",", "")))


def _draw_cells(ax: Axes, expression: Expression) -> None:
    """Draw each cell as a point."""
    points = np.log1p(np.c_[expression.raw, expression.denoised])
    size = float(np.clip(8000 / len(points), 0.5, 8))
    ax.scatter(points[:, 0], points[:, 1], s=size, color=BLUE, alpha=0.5, linewidths=0, rasterized=True)
    top = 1.05 * points.max() or 1.0
    ax.axline((0, 0), slope=1, color=GREY, linestyle="--", linewidth=0.8, zorder=0)
    ax.set(
        xlim=(-0.03 * top, top),
        ylim=(-0.03 * top, top),
        xlabel="raw, per 10,000",
        ylabel="denoised, per 10,000",
        box_aspect=1,
    )
    _ticks(ax.xaxis, top)
    _ticks(ax.yaxis, top)


def _draw_violins(ax: Axes, expression: Expression, groups: Groups) -> None:
    """Draw two halves for each group, and their means."""
    top = 1.05 * np.log1p(max(expression.raw.max(), expression.denoised.max())) or 1.0
    for values, (side, _, color, mean_color) in zip(expression, HALVES, strict=True):
        for code in range(len(groups.names)):
            own = values[groups.codes == code]
            at, width = _density(np.log1p(own), top)
            ax.fill_betweenx(at, code, code + side * HALF * width, color=color, linewidth=0)
            ax.plot(
                code + side * 0.12, np.log1p(own.mean()), "o", markersize=4, color=mean_color, markeredgecolor=BLACK
            )
    ax.set(xlim=(-0.6, len(groups.names) - 0.4), ylim=(-BELOW, top))
    ax.set_xticks(range(len(groups.names)), groups.names, rotation=90)
    _ticks(ax.yaxis, top)


def _density(values: np.ndarray, top: float) -> tuple[np.ndarray, np.ndarray]:
    """Smoothed histogram on a grid, its largest value 1."""
    edges = np.linspace(-BELOW, top, N_BINS + 1)
    counts = np.histogram(values, edges)[0].astype(float)
    density = ndimage.gaussian_filter1d(counts, SMOOTHING / (edges[1] - edges[0]), mode="constant")
    return (edges[1:] + edges[:-1]) / 2, density / density.max()


def _explain_halves(panels: list[Axes], *, own_figure: bool) -> None:
    """Say once for all panels what the halves and the points are."""
    handles: list[Artist] = [Patch(color=color, label=name) for _, name, color, _ in HALVES]
    handles.append(Line2D([], [], marker="o", linestyle="", markersize=4, color="white", mec=BLACK, label="mean"))
    look: dict[str, Any] = {"handles": handles, "frameon": False, "fontsize": 9}
    if own_figure:
        panels[0].figure.figure.legend(loc="outside upper right", ncols=3, **look)
    else:
        panels[0].legend(loc="upper left", bbox_to_anchor=(1, 1), **look)
    for panel in panels:
        spec = panel.get_subplotspec()
        if spec is None or spec.is_first_col():
            panel.set_ylabel("counts per 10,000")


def _ticks(axis: Axis, top: float) -> None:
    """Label an axis of log(1 + x) with x."""
    ticks = [tick for tick in (TICKS if top < np.log1p(TICKS[-1]) else DECADES) if np.log1p(tick) <= top]
    axis.set_ticks(np.log1p(ticks), [f"{tick:,}" for tick in ticks])
