"""What a latent does to genes, and which perturbations push it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from .. import get
from ..get._perturbation_tables import known, perturbation_fit
from ._axes import BLACK, BLUE, GREY, ORANGE, finish, take_axes

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 0.19
"""Height of a row, in inches."""


def svae_program(
    adata: AnnData,
    latent: int | str,
    *,
    n_genes: int = 10,
    n_perturbations: int = 20,
    key: str = "svae",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | bool | None = None,
    return_fig: bool = False,
) -> Axes | list[Axes] | Figure | None:
    """Draw the genes that a latent raises and lowers, beside the perturbations that push it.

    On the left, how much the logarithm of a gene's share in a control cell changes for one standard deviation of the
    latent. Genes are those for which this change would be seen best in counts, of either sign: those with the largest
    change times the root of the gene's share, since genes with hardly any counts have large changes that nobody could
    see. On the right, the shift along the latent of the perturbations that have it as a target, with
    95% intervals. A perturbation with a negative shift lowers the genes on top and raises those below.

    Parameters
    ----------
    adata
        Annotated data with a fit by :func:`scanpy_scvi.tl.svae`.
    latent
        Number of the latent.
    n_genes
        Genes of either sign.
    n_perturbations
        Most perturbations; those with the largest shifts.
    key
        The ``key_added`` of the fit.
    ax
        Axes to draw the genes in, and nothing else; by default both panels of a new figure.
    show
        Whether to show the figure at once; ``None`` follows ``sc.settings.autoshow``.
    save
        Whether to save the figure under ``sc.settings.figdir``; a string is added to the file's name.
    return_fig
        Whether to return the figure in place of its axes.

    Returns
    -------
    The axes of both panels, or `ax` where it was given, or the figure, or ``None`` where it was shown.

    Raises
    ------
    KeyError
        If there is no fit with perturbations under that key, or no such latent.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate_perturbations(n_perturbations=8, n_latent=3, cells_per_perturbation=30)
    >>> sv.tl.svae(adata, "perturbation", control="control", n_latent=3, max_epochs=5, progress=False)
    >>> genes, perturbations = sv.pl.svae_program(adata, 0, n_genes=5, show=False)
    >>> len(genes.get_yticks())
    10
    """
    fit = perturbation_fit(adata, key)
    column = known(fit, str(latent), fit.latents, "latent")
    slot = f"{key}_programs"
    if slot not in adata.varm:
        msg = f"adata.varm has no {slot!r}, which sv.tl.svae writes. Fit again."
        raise KeyError(msg)
    program = np.asarray(adata.varm[slot], float)[:, column]
    share = adata.var.get(f"{key}_basal_expression")
    genes = _genes(adata, program, program if share is None else program * np.sqrt(share.to_numpy(float)), n_genes)
    title = f"latent {fit.latents[column]}"
    if ax is not None:
        _draw_genes(take_axes(ax), *genes).set_title(title)
        return finish(ax, "svae_program", show=show, save=save, return_fig=return_fig)
    pushing = _pushing(get.perturbations(adata, key), column, n_perturbations)
    height = 1.0 + ROW * max(len(genes[0]), len(pushing), 4)
    panels = list(plt.subplots(1, 2, figsize=(7.5, height), layout="constrained")[1])
    _draw_genes(take_axes(panels[0]), *genes).set_title(title, fontsize=10)
    _draw_perturbations(take_axes(panels[1]), pushing)
    return finish(panels, "svae_program", show=show, save=save, return_fig=return_fig)


def _genes(adata: AnnData, program: np.ndarray, score: np.ndarray, n: int) -> tuple[list[str], np.ndarray]:
    """Names and changes of the genes with the highest scores, then of those with the lowest; none twice."""
    order = np.argsort(-score, kind="stable")  # NaN, of genes outside of the model, come last
    order = order[: np.isfinite(score).sum()]
    ends = np.unique(np.r_[np.arange(min(n, len(order))), np.arange(max(0, len(order) - n), len(order))])
    rows = order[ends]
    return list(adata.var_names[rows].astype(str)), program[rows]


def _draw_genes(ax: Axes, names: list[str], values: np.ndarray) -> Axes:
    ax.barh(np.arange(len(names)), values, color=np.where(values > 0, ORANGE, BLUE), height=0.75)
    ax.axvline(0, color=GREY, linewidth=0.8)
    ax.set_yticks(np.arange(len(names)), names, fontsize=8)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("change of log share for one sd")
    return ax


def _pushing(space: AnnData, column: int, n: int) -> pd.DataFrame:
    """Shifts along a latent of the perturbations that have it as a target, the largest of either sign, falling."""
    table = space.obs.assign(shift=np.asarray(space.X)[:, column], error=space.layers["standard_error"][:, column])
    table = table[table["shift"] != 0]
    strongest = table["shift"].abs().sort_values(ascending=False, kind="stable").index[:n]
    return table.loc[strongest].sort_values("shift", ascending=False, kind="stable").assign(n_pushing=len(table))


def _draw_perturbations(ax: Axes, table: pd.DataFrame) -> None:
    y, shift = np.arange(len(table)), table["shift"].to_numpy(float)
    ax.axvline(0, color=GREY, linewidth=0.8)
    colors = np.where(shift > 0, ORANGE, BLUE)
    half = 1.96 * table["error"].to_numpy(float)
    ax.hlines(y, shift - half, shift + half, color=BLACK, linewidth=1)
    ax.scatter(shift, y, s=28, c=colors, zorder=3)
    ax.set_yticks(y, list(table.index), fontsize=8)
    ax.set_ylim(max(len(table), 1) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("shift (sd of the prior)")
    n = int(table["n_pushing"].iloc[0]) if len(table) else 0
    some = f"{len(table)} of {n}" if n > len(table) else str(n or "no")
    plural = n > 1 or not n
    ax.set_title(f"{some} perturbation{'s' if plural else ''} push{'' if plural else 'es'} it", fontsize=10)
