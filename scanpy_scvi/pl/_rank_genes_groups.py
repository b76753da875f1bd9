"""Scanpy's own pictures of ranked genes, with denoised expression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import pandas as pd
import scanpy as sc
from matplotlib.axes import Axes

from ..get._rank_genes_groups import stored_table
from ._axes import finish
from ._ranking import KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.figure import Figure

Kind = Literal["dotplot", "matrixplot", "stacked_violin", "heatmap", "tracksplot", "panel"]
TAKE_AXES = ("dotplot", "matrixplot", "stacked_violin", "panel")
SCALED = {"dotplot": "mean", "matrixplot": "mean", "stacked_violin": "median", "heatmap": ""}
"""Plots that scale each gene, and which number of a group's cells they colour by."""


def rank_genes_groups(
    adata: AnnData,
    kind: Kind = "dotplot",
    *,
    n_genes: int | None = None,
    layer: str | Literal["auto"] | None = "auto",
    key: str = KEY,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | bool | None = None,
    return_fig: bool = False,
    **kwargs: Any,
) -> list[Axes] | Figure | None:
    """Draw ranked genes by one of scanpy's plots, from the denoised expression of the fit.

    Calls ``sc.pl.rank_genes_groups_dotplot`` and its kin with the right key and layer. What differs from scanpy's own
    defaults:

    - Values are the fit's normalized expression. In a dot plot, a matrix plot, a heat map, and stacked violins
      each gene is scaled from 0 to 1 (``standard_scale="var"``), unless something else is passed.
    - The size of a dot is the share of cells with a **count**: denoised expression is never zero.
    - A dendrogram is drawn if one is stored, as by ``sc.tl.dendrogram(adata, groupby, use_rep="X_scvi")``.

    Parameters
    ----------
    adata
        Annotated data with a result of :func:`scanpy_scvi.tl.rank_genes_groups`.
    kind
        Which plot. ``"panel"`` is ``sc.pl.rank_genes_groups``: the best genes of each group by score.
    n_genes
        Genes of each group; by default 4, or 20 in a panel. Not with ``var_names``.
    layer
        Layer to draw; by default the normalized expression of the fit that ranked the genes. `None` draws `X`.
    key
        Key of the result in `uns`.
    ax
        Axes to draw in, for those plots that can: dot plot, matrix plot, stacked violins, panel.
    show
        Whether to show the figure at once; ``None`` follows ``sc.settings.autoshow``.
    save
        Whether to save the figure under ``sc.settings.figdir``; a string is added to the file's name.
    return_fig
        Whether to return the figure in place of its axes.
    **kwargs
        More options of scanpy's plot, such as ``groups``, ``var_names``, ``swap_axes`` or ``values_to_plot``.

    Returns
    -------
    All axes of the figure, or the figure, or ``None`` where it was shown.

    Raises
    ------
    KeyError
        If there is no such result or layer.
    ValueError
        For another `kind`, or `ax` with a plot that cannot take it.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.cell_lines()
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=2, progress=False)
    >>> sv.tl.rank_genes_groups(adata, "cell_type", n_samples=200)
    >>> axes = sv.pl.rank_genes_groups(adata, "matrixplot", n_genes=2, show=False)
    """
    params = _check(adata, kind, key, ax)
    options: dict[str, Any] = {"key": key, "show": False} | kwargs
    if "var_names" not in kwargs:
        options["n_genes"] = n_genes or (20 if kind == "panel" else 4)
    if ax is not None:
        options["ax"] = ax
    if kind == "panel":
        drawn = sc.pl.rank_genes_groups(adata, **options)
    else:
        groupby = str(kwargs.get("groupby", params["groupby"]))
        options = _values(adata, kind, groupby, _layer(adata, layer, str(params["key"])), kwargs) | options
        if kind == "dotplot":
            drawn = _dotplot(adata, groupby, str(params["key"]), options)
        else:
            drawn = getattr(sc.pl, f"rank_genes_groups_{kind}")(adata, **options)
    return finish(_flat(drawn), f"rank_genes_groups_{kind}", show=show, save=save, return_fig=return_fig)


def _flat(drawn: Axes | Mapping[str, Any] | Sequence[Any]) -> list[Axes]:
    """All axes in what a plot of scanpy returned."""
    if isinstance(drawn, Axes):
        return [drawn]
    parts = drawn.values() if isinstance(drawn, Mapping) else drawn
    return [ax for part in parts for ax in _flat(part)]


def _check(adata: AnnData, kind: str, key: str, ax: Axes | None) -> Mapping[str, Any]:
    """Return the options of the call that ranked, or raise for what cannot be drawn."""
    if kind not in get_args(Kind):
        msg = f"`kind` is {kind!r}, but one of {', '.join(map(repr, get_args(Kind)))} was expected."
        raise ValueError(msg)
    if ax is not None and kind not in TAKE_AXES:
        msg = f"`ax` was passed, but scanpy's {kind} makes a figure of its own. Leave it out."
        raise ValueError(msg)
    stored_table(adata, key)
    return adata.uns[key]["params"]


def _layer(adata: AnnData, layer: str | None, fit: str) -> str | None:
    name = f"{fit}_normalized" if layer == "auto" else layer
    if name is not None and name not in adata.layers:
        msg = f"adata.layers has no {name!r}. Run sv.tl.normalized_expression, or pass `layer`; None draws adata.X."
        raise KeyError(msg)
    return name


def _values(adata: AnnData, kind: str, groupby: str, layer: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the plots that draw expression."""
    options: dict[str, Any] = {"layer": layer, "use_raw": False, "dendrogram": f"dendrogram_{groupby}" in adata.uns}
    if kind in SCALED and given.get("values_to_plot") is None and "standard_scale" not in given:
        options["standard_scale"] = "var"
        if SCALED[kind]:
            options["colorbar_title"] = f"{SCALED[kind]} in group,\nscaled per gene"
    return options


def _dotplot(adata: AnnData, groupby: str, fit: str, options: Mapping[str, Any]) -> dict[str, Axes]:
    """Let scanpy make the plot, and give its dots the size of what was counted."""
    plot = sc.pl.rank_genes_groups_dotplot(adata, **options, return_fig=True)
    if not {"expression_cutoff", "dot_size_df"} & set(options):
        sizes = plot.dot_size_df
        symbols = options.get("gene_symbols")
        names = list(sizes) if symbols is None else [adata.var_names[adata.var[symbols] == s][0] for s in sizes]
        layer = adata.uns.get(fit, {}).get("params", {}).get("layer")
        counted = adata[:, list(dict.fromkeys(names))].to_df(layer) > 0
        share = counted.groupby(adata.obs[groupby].astype(str).to_numpy()).mean()
        values = share.loc[sizes.index.astype(str), names].to_numpy()
        plot.dot_size_df = pd.DataFrame(values, index=sizes.index, columns=sizes.columns)
    return plot.get_axes()
