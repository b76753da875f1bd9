"""What a perturbation does to genes: predicted against counted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from .. import get
from ._axes import BLACK, BLUE, GREY, ORANGE, finish, take_axes
from ._labels import label_points

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BETWEEN = re.compile(r"\s*(?:\+|\|\|)\s*")
"""Between the perturbations of a pair."""
FAINT, CLEAR = 0.12, 0.8
"""Opacity of points that are not sure at all, and quite sure."""
UNSURE = 0.3
"""Standard error of an observed log2 fold change at which a point is halfway."""


def svae_effect(
    adata: AnnData,
    perturbation: str,
    *,
    genes: Sequence[str] | None = None,
    n_genes: int = 10,
    target: str | Sequence[str] | None = None,
    effect: pd.DataFrame | None = None,
    key: str = "svae",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | bool | None = None,
    return_fig: bool = False,
) -> Axes | Figure | None:
    """Draw the predicted log2 fold change of every gene against the observed one.

    Genes on the diagonal change as the perturbation's latents say. The gene that is itself knocked down or out is
    marked: it often lies off the diagonal, since its own loss is no program. A point is the fainter the less sure what
    was observed is, which for genes with few counts is not much. Bars are 95% intervals of the prediction, of the genes
    that are named.

    Parameters
    ----------
    adata
        Annotated counts with a fit by :func:`scanpy_scvi.tl.svae`.
    perturbation
        Name of a perturbation, or ``"A+B"``.
    genes
        Genes to name; by default those that change most as observed, at the near end of a 95% interval.
    n_genes
        How many, where `genes` are not given.
    target
        Gene, or genes, that the perturbation acts on; by default those with its name.
    effect
        What :func:`scanpy_scvi.get.perturbation_effect` returned for this perturbation; computed where it is not given.
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
    The axes or the figure, or ``None`` where it was shown. The title has Pearson's correlation over all genes.

    Raises
    ------
    KeyError
        If there is no fit with perturbations under that key, no such perturbation, or no such gene.
    ValueError
        Where nothing was observed: no cell has the perturbation, or the counts were dropped.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate_perturbations(n_perturbations=8, n_latent=3, cells_per_perturbation=30)
    >>> sv.tl.svae(adata, "perturbation", control="control", n_latent=3, max_epochs=5, progress=False)
    >>> ax = sv.pl.svae_effect(adata, sv.get.perturbations(adata).obs_names[0], show=False)
    >>> ax.get_xlabel()
    'observed log2 fold change'
    """
    table = get.perturbation_effect(adata, perturbation, key=key) if effect is None else effect
    observed, predicted = table["observed"].to_numpy(float), table["predicted"].to_numpy(float)
    if not np.isfinite(observed).all():
        msg = (
            f"No fold change of {perturbation!r} was observed: no cell has it, or the counts were dropped. "
            "`get.perturbation_effect` has what is predicted."
        )
        raise ValueError(msg)
    acted_on = _rows(table, BETWEEN.split(perturbation) if target is None else target, required=target is not None)
    error = table["observed_error"].to_numpy(float)
    largest = np.argsort(1.96 * error - np.abs(observed), kind="stable")[:n_genes]
    named = largest if genes is None else _rows(table, genes, required=True)
    ax = take_axes(ax, (4.8, 4.8))
    ax.axline((0, 0), slope=1, color=GREY, linewidth=0.8, zorder=0)
    for line in (ax.axhline, ax.axvline):
        line(0, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
    sure = FAINT + (CLEAR - FAINT) / (1 + (error / UNSURE) ** 2)
    ax.scatter(observed, predicted, s=12, color=BLUE, alpha=sure, linewidths=0)
    named = np.array([i for i in dict.fromkeys([*acted_on, *named])], int)
    low, high = (np.abs(table[side].to_numpy(float) - predicted)[named] for side in ("low", "high"))
    ax.errorbar(observed[named], predicted[named], [low, high], fmt="none", ecolor=BLACK, elinewidth=0.7, alpha=0.6)
    ax.scatter(
        observed[acted_on], predicted[acted_on], s=36, marker="D", color=ORANGE, edgecolors=BLACK, linewidths=0.6
    )
    ax.set(xlabel="observed log2 fold change", ylabel="predicted log2 fold change")
    ax.margins(0.08)
    ax.set_title(_title(perturbation, observed, predicted, int(table["n_cells"].iloc[0])), fontsize=10)
    points = np.c_[observed, predicted]
    far = np.argsort(-np.abs(points).max(1), kind="stable")[: 20 * max(n_genes, 1)]  # of the crowd no name stands clear
    label_points(ax, points[named], table.index[named].astype(str).to_list(), points[far])
    return finish(ax, "svae_effect", show=show, save=save, return_fig=return_fig)


def _rows(table: pd.DataFrame, genes: str | Sequence[str], *, required: bool) -> np.ndarray:
    """Rows of genes; those that are not there are left out, or named in a KeyError."""
    wanted = [genes] if isinstance(genes, str) else [str(gene) for gene in genes]
    missing = [gene for gene in wanted if gene not in table.index]
    if required and missing:
        msg = f"The genes {', '.join(map(repr, missing[:3]))} are not in the table of effects. Pass genes of the model."
        raise KeyError(msg)
    return np.array([table.index.get_loc(gene) for gene in dict.fromkeys(wanted) if gene in table.index], int)


def _title(perturbation: str, observed: np.ndarray, predicted: np.ndarray, n_cells: int) -> str:
    """Name, cells, and how well both agree; a prediction of no change agrees with nothing."""
    about = f"{perturbation} ({n_cells:,} cells)"
    if predicted.std() == 0 or observed.std() == 0:
        return f"{about}: no open gate"
    return f"{about}: correlation {np.corrcoef(observed, predicted)[0, 1]:.2f}"
