"""The demo's picture: before and after, by cell line and by library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure  # not pyplot: no window, no display needed

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes


class Column(NamedTuple):
    """One way to colour the cells."""

    key: str
    title: str
    colors: list[str]


# Colours that colour-blind readers tell apart: Okabe and Ito's for the lines, Paul Tol's "bright" for the libraries
COLUMNS = (
    Column("cell_type", "by cell line (the truth)", ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9"]),
    Column("batch", "by library (the batch)", ["#4477AA", "#66CCEE", "#228833", "#CCBB44", "#EE6677"]),
)
ROWS = (("before", "X_umap_uncorrected", "log-normalised, PCA"), ("after", "X_umap", "scVI"))
FRAME = "#CCCCCC"


def draw(adata: AnnData, summary: dict[str, Any], path: Path) -> None:
    """Draw UMAPs before (upper row) and after (lower row), coloured by cell line and by library, into a PNG."""
    with mpl.rc_context():
        mpl.rcdefaults()  # the picture is the same whatever the user's style
        mpl.rcParams["font.size"] = 11
        figure = Figure(figsize=(9, 9.6), layout="constrained")
        axes = figure.subplots(2, 2)
        for row, (stage, basis, title) in zip(axes, ROWS, strict=True):
            for ax, column in zip(row, COLUMNS, strict=True):
                _scatter(ax, adata, basis, column)
            _caption(row, stage, title, summary[stage])
        for ax, column in zip(axes[0], COLUMNS, strict=True):
            ax.set_title(column.title, fontsize=14, fontweight="bold", pad=10)
        for ax in axes[1]:
            handles, labels = ax.get_legend_handles_labels()
            place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.09), "ncols": 3, "frameon": False}
            ax.legend(handles, labels, markerscale=3, handletextpad=0.1, columnspacing=1.0, fontsize=10, **place)
        figure.savefig(path, dpi=110)


def _scatter(ax: Axes, adata: AnnData, basis: str, column: Column) -> None:
    """Draw one UMAP; cells in random order, so that no group hides another."""
    adata.uns[f"{column.key}_colors"] = np.array(column.colors, dtype=object)  # for scanpy's own plots
    groups, order = adata.obs[column.key].cat, np.random.default_rng(0).permutation(adata.n_obs)
    x, y = adata.obsm[basis][order].T
    ax.scatter(x, y, c=np.array(column.colors)[groups.codes.to_numpy()[order]], s=9, linewidths=0)
    for category, color in zip(groups.categories, column.colors, strict=True):
        ax.scatter([], [], c=color, s=9, linewidths=0, label=category)
    ax.set(xticks=[], yticks=[])
    ax.margins(0.08)
    ax.spines[:].set_color(FRAME)


def _caption(row: np.ndarray, stage: str, title: str, scores: dict[str, float]) -> None:
    """Name the embedding on the left; write under each panel the number that goes with what it shows."""
    row[0].set_ylabel(f"{stage}: {title}", fontsize=14, fontweight="bold", labelpad=10)
    row[0].set_xlabel(f"right cell line by neighbours' vote: {scores['label_score']:.1%}")
    mixing, ideal = scores["batch_mixing"], scores["ideal_batch_mixing"]
    row[1].set_xlabel(f"neighbours of the same library: {mixing:.0%} (ideal {ideal:.0%})")
