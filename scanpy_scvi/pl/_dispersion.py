"""Mean, and inverse dispersion or variance, of every gene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from ._axes import BLUE, GREY, PALETTE, finish, take_axes
from ._panels import take_panels
from ._variance import draw_ratios, draw_variances, read_variances

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIX = "_dispersion"
KINDS = ("dispersion", "variance")


def dispersion(
    adata: AnnData,
    key: str = "scvi",
    *,
    kind: Literal["dispersion", "variance"] = "dispersion",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | bool | None = None,
    return_fig: bool = False,
) -> Axes | list[Axes] | Figure | None:
    r"""Draw how the dispersion, or the variance, of genes goes with their mean, on logarithmic axes.

    Under a negative binomial a gene's variance is :math:`\mu + \mu^2 / \theta`. ``kind="dispersion"`` draws the
    inverse dispersion :math:`\theta`. The dashed line is :math:`\theta = \mu`, where the variance is twice the mean:
    genes far above it vary as Poisson counts do, genes below it vary more.

    ``kind="variance"`` draws the observed variance, without what depth explains, beside the lines of the negative
    binomial and zero-inflated fits (medians of genes with a similar mean) and that of Poisson counts; a second panel
    has the variance of each fit as a multiple of the observed one.

    Parameters
    ----------
    adata
        Annotated data with inverse dispersions in ``var[f"{key}_dispersion"]``, or several for each gene (by batch or
        by label) in ``varm[f"{key}_dispersion"]``.
    key
        The ``key_added`` of the fit that wrote them: of :func:`scanpy_scvi.tl.scvi`, or of
        :func:`scanpy_scvi.pp.fit_dispersion`, which alone writes variances.
    kind
        Which of the two to draw.
    ax
        Axes to draw in; by default those of a new figure. Of the variances they take the first panel alone.
    show
        Whether to show the figure at once; ``None`` follows ``sc.settings.autoshow``.
    save
        Whether to save the figure under ``sc.settings.figdir``; a string is added to the file's name.
    return_fig
        Whether to return the figure in place of its axes.

    Returns
    -------
    The axes (two for variances, unless `ax` was given) or the figure, or ``None`` where it was shown. Genes without
    counts or without a dispersion are left out.

    Raises
    ------
    KeyError
        If there are no dispersions, or variances, under that key.
    ValueError
        For another `kind`.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=200, density=0.3)
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=5, progress=False)
    >>> sv.pl.dispersion(adata, show=False).get_xlabel()
    'mean count'
    """
    if kind not in KINDS:
        msg = f"`kind` is {kind!r}, but one of {', '.join(map(repr, KINDS))} was expected."
        raise ValueError(msg)
    if kind == "dispersion":
        ax = _draw_dispersions(ax, adata, key)
        return finish(ax, "dispersion", show=show, save=save, return_fig=return_fig)
    genes = read_variances(adata, key)
    if ax is not None:
        draw_variances(take_axes(ax), genes, key)
        return finish(ax, "dispersion", show=show, save=save, return_fig=return_fig)
    panels = take_panels(2, 2, (4.5, 3.5))
    draw_variances(panels[0], genes, key)
    draw_ratios(panels[1], genes)
    return finish(panels, "dispersion", show=show, save=save, return_fig=return_fig)


def _draw_dispersions(ax: Axes | None, adata: AnnData, key: str) -> Axes:
    theta, mean = _inverse_dispersions(adata, key), _means(adata, key)
    names = _column_names(adata, key, theta.shape[1])
    colors = [BLUE] if len(names) == 1 else PALETTE
    ax = take_axes(ax)
    for column, name in enumerate(names):
        drawn = np.isfinite(theta[:, column]) & (theta[:, column] > 0) & (mean > 0)
        ax.scatter(
            mean[drawn],
            theta[drawn, column],
            s=6,
            alpha=0.6,
            linewidths=0,
            color=colors[column % len(colors)],
            label=name,
        )
    ax.set(xscale="log", yscale="log", xlabel="mean count", ylabel="inverse dispersion θ", title=key)
    limits, theta_limits = ax.get_xlim(), ax.get_ylim()
    ax.plot(limits, limits, color=GREY, linestyle="--", label="variance = 2 × mean", zorder=0)
    ax.set(xlim=limits, ylim=theta_limits)
    ax.legend(frameon=False, markerscale=2)
    return ax


def _inverse_dispersions(adata: AnnData, key: str) -> np.ndarray:
    """Genes x columns."""
    name = f"{key}{SUFFIX}"
    if name in adata.var:
        return adata.var[[name]].to_numpy(float)
    if name in adata.varm:
        return np.asarray(adata.varm[name], float)
    found = [str(k).removesuffix(SUFFIX) for k in (*adata.var, *adata.varm) if str(k).endswith(SUFFIX)]
    advice = (
        f"Pass key={' or key='.join(map(repr, found))}" if found else "Run sv.tl.scvi or sv.pp.fit_dispersion first"
    )
    msg = (
        f"Neither adata.var nor adata.varm has {name!r}. {advice}; a fit with Poisson counts or "
        "dispersion='gene-cell' has no dispersion of a gene."
    )
    raise KeyError(msg)


def _means(adata: AnnData, key: str) -> np.ndarray:
    """Mean of each gene: as fitted where that is stored, else of the counts."""
    if f"{key}_mean" in adata.var:
        return adata.var[f"{key}_mean"].to_numpy(float)
    layer = adata.uns.get(key, {}).get("params", {}).get("layer")
    counts = adata.X if layer is None else adata.layers[layer]
    return np.asarray(counts.mean(axis=0)).ravel()


def _column_names(adata: AnnData, key: str, n_columns: int) -> list[str]:
    if n_columns == 1:
        return ["gene"]
    fit = adata.uns.get(key, {})
    kind = "batch" if fit.get("params", {}).get("dispersion") == "gene-batch" else "labels"
    names = [str(name) for name in fit.get("categories", {}).get(kind, ())]
    return names if len(names) == n_columns else [f"column {i}" for i in range(n_columns)]
