"""Whether the gates of a fit can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from scipy import stats

from ..get._perturbation_tables import perturbation_fit
from ._axes import BLACK, BLUE, GREY, ORANGE, finish, take_axes
from ._panels import take_panels

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..get._perturbation_tables import Nulls, PerturbationFit


def svae_diagnostics(
    adata: AnnData,
    key: str = "svae",
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | bool | None = None,
    return_fig: bool = False,
) -> Axes | list[Axes] | Figure | None:
    """Draw what tells whether the gates of a fit can be trusted.

    Probabilities of gates should lie near 0 and 1, and few in between. The share of open gates should have become flat
    by the last epoch. The number of targets should not grow with the number of cells: where it does, the rule finds
    what there are cells to find. The shifts of parts of the control, in standard errors, should follow the normal
    distribution, on the diagonal; beyond the dashed lines and the least shift, they would be called targets.

    Parameters
    ----------
    adata
        Annotated data with a fit by :func:`scanpy_scvi.tl.svae`.
    key
        The ``key_added`` of the fit.
    ax
        Axes to draw the probabilities in, and nothing else; by default all panels of a new figure.
    show
        Whether to show the figure at once; ``None`` follows ``sc.settings.autoshow``.
    save
        Whether to save the figure under ``sc.settings.figdir``; a string is added to the file's name.
    return_fig
        Whether to return the figure in place of its axes.

    Returns
    -------
    The axes of all panels, or `ax` where it was given, or the figure, or ``None`` where it was shown. Without a control
    there is no last panel, and without a stage of gates no share of open ones.

    Raises
    ------
    KeyError
        If there is no fit with perturbations under that key.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate_perturbations(n_perturbations=8, n_latent=3, cells_per_perturbation=30)
    >>> sv.tl.svae(adata, "perturbation", control="control", n_latent=3, max_epochs=5, progress=False)
    >>> sv.pl.svae_diagnostics(adata, show=False)[0].get_xlabel()
    'probability of an open gate'
    """
    fit = perturbation_fit(adata, key)
    if ax is not None:
        _draw_probabilities(take_axes(ax), fit)
        return finish(ax, "svae_diagnostics", show=show, save=save, return_fig=return_fig)
    with_density, with_nulls = len(fit.gate_density) > 0, fit.nulls is not None
    panels = take_panels(2 + with_density + with_nulls, 2, (3.6, 3.0))
    places = iter(panels)
    _draw_probabilities(next(places), fit)
    if with_density:
        _draw_density(next(places), fit)
    _draw_counts(next(places), fit)
    if fit.nulls is not None:
        _draw_nulls(next(places), fit, fit.nulls)
    return finish(panels, "svae_diagnostics", show=show, save=save, return_fig=return_fig)


def _draw_probabilities(ax: Axes, fit: PerturbationFit) -> None:
    probability, is_target = (fit.targets[name].to_numpy() for name in ("probability", "is_target"))
    probability = probability.astype(float)
    parts = [probability[~is_target.astype(bool)], probability[is_target.astype(bool)]]
    ax.hist(parts, np.linspace(0, 1, 41).tolist(), stacked=True, color=[GREY, ORANGE], label=["no target", "target"])
    ax.set_yscale("log")
    ax.set_ylim(bottom=0.7)
    ax.set(xlabel="probability of an open gate", ylabel="gates")
    doubtful = float(((probability > 0.1) & (probability < 0.9)).mean())
    ax.set_title(f"{len(parts[1]):,} of {len(probability):,} gates open, {doubtful:.1%} in doubt", fontsize=9)
    ax.legend(frameon=False, fontsize=8, loc="upper center")


def _draw_density(ax: Axes, fit: PerturbationFit) -> None:
    ax.plot(np.arange(1, len(fit.gate_density) + 1), fit.gate_density, color=BLUE)
    ax.set_ylim(0, max(1.05 * float(fit.gate_density.max()), 0.01))
    ax.set(xlabel="epoch with gates", ylabel="share of gates open")
    ax.set_title(f"in the end {fit.gate_density[-1]:.1%}", fontsize=9)


def _draw_counts(ax: Axes, fit: PerturbationFit) -> None:
    n_cells, n_targets = (fit.perturbations[name].to_numpy(float) for name in ("n_cells", "n_targets"))
    ax.scatter(n_cells, n_targets, s=16, color=BLUE, alpha=0.5, linewidths=0)
    _log_of_counts(ax, n_cells)
    ax.set_ylim(-0.5, max(n_targets.max(), 1) + 0.5)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="cells of the perturbation", ylabel="targets")
    if len(n_cells) > 2 and np.ptp(n_cells) > 0 and np.ptp(n_targets) > 0:
        ax.set_title(f"rank correlation {stats.spearmanr(n_cells, n_targets).statistic:.2f}", fontsize=9)


def _log_of_counts(ax: Axes, values: np.ndarray) -> None:
    """A logarithmic axis with whole numbers, as many as there is room for."""
    ax.set_xscale("log")
    ax.set_xlim(values.min() / 1.2, values.max() * 1.2)
    narrow = values.max() < 50 * values.min()
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,)))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _draw_nulls(ax: Axes, fit: PerturbationFit, nulls: Nulls) -> None:
    """Quantiles of the null shifts in standard errors against those of the normal distribution."""
    z = np.sort((nulls.shifts / nulls.errors).ravel())
    normal = stats.norm.ppf((np.arange(len(z)) + 0.5) / len(z))
    ax.axline((0, 0), slope=1, color=GREY, linewidth=0.8, zorder=0)
    for limit in (-fit.min_errors, fit.min_errors):
        ax.axhline(limit, color=BLACK, linestyle="--", linewidth=0.8, zorder=0)
    ax.scatter(normal, z, s=8, color=BLUE, linewidths=0)
    ax.set(xlabel="normal quantile", ylabel="null shift / standard error")
    ax.set_title(f"{fit.count_null_targets():,} of {len(nulls.cells):,} null splits would have a target", fontsize=9)
