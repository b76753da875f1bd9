"""Mean and variance of every gene, beside what Poisson, NB and ZINB expect."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.ticker import FuncFormatter

from ._axes import BLACK, BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

FITS = (("variance_nb", "NB", BLUE, "-"), ("variance_zinb", "ZINB", ORANGE, "--"))
"""Column, name, colour and line of each fit."""
PER_POINT, MOST_POINTS = 30, 40
"""Genes of a similar mean that a point of a line stands for, at least; points of a line, at most."""


class Variances(NamedTuple):
    """Genes with counts."""

    mean: np.ndarray
    observed: np.ndarray
    fitted: tuple[np.ndarray, ...]
    """As `FITS`."""


def read_variances(adata: AnnData, key: str) -> Variances:
    """Return what `pp.fit_dispersion` stored."""
    if f"{key}_variance" not in adata.var:
        found = [str(k).removesuffix("_variance") for k in adata.var if str(k).endswith("_variance")]
        advice = f"Pass key={' or key='.join(map(repr, found))}" if found else "Run sv.pp.fit_dispersion first"
        msg = f"adata.var has no {f'{key}_variance'!r}. {advice}."
        raise KeyError(msg)
    mean, observed = (adata.var[f"{key}_{name}"].to_numpy(float) for name in ("mean", "variance"))
    if f"{key}_zero_inflation" in adata.var:  # then the mean is that of the part that is not inflated
        mean = mean * (1 - adata.var[f"{key}_zero_inflation"].to_numpy(float))
    drawn = (mean > 0) & (observed > 0)
    fitted = tuple(adata.var[f"{key}_{column}"].to_numpy(float)[drawn] for column, *_ in FITS)
    return Variances(mean[drawn], observed[drawn], fitted)


def draw_variances(ax: Axes, genes: Variances, title: str) -> None:
    """Draw each gene's variance against its mean, and the fits as lines."""
    ax.scatter(genes.mean, genes.observed, s=6, alpha=0.5, linewidths=0, color=GREY, label="gene")
    for fitted, (_, label, color, line) in zip(genes.fitted, FITS, strict=True):
        ax.plot(*_medians(genes.mean, fitted), color=color, linestyle=line, linewidth=2, label=f"{label}, median")
    ends = np.array([genes.mean.min(), genes.mean.max()]) if len(genes.mean) else np.array([1.0, 1.0])
    ax.plot(ends, ends, color=BLACK, linestyle=":", label="Poisson")
    ax.set(xscale="log", yscale="log", xlabel="mean count", ylabel="variance beyond that of depth", title=title)
    ax.legend(frameon=False, loc="upper left")


def draw_ratios(ax: Axes, genes: Variances) -> None:
    """Draw each fit's variance as a multiple of the observed one."""
    ax.axhline(1, color=GREY, linewidth=0.8, zorder=0)
    for size, fitted, (_, label, color, _) in zip(
        (4, 14), genes.fitted, FITS, strict=True
    ):  # the small before the large
        ratio = fitted / genes.observed
        ax.scatter(genes.mean, ratio, s=size, linewidths=0, color=color, label=label, zorder=3 - size / 10)
    ax.set(xscale="log", xlabel="mean count", ylabel="fitted / observed variance")
    ax.set_yscale("log", base=2)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
    ax.legend(frameon=False, markerscale=2)


def _medians(mean: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Medians over genes of a similar mean, in equal numbers."""
    order = np.argsort(mean)
    parts = [p for p in np.array_split(order, min(MOST_POINTS, max(1, len(order) // PER_POINT))) if len(p)]
    return np.array([np.median(mean[p]) for p in parts]), np.array([np.median(values[p]) for p in parts])
