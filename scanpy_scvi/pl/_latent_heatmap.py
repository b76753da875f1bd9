"""Mean of every latent dimension in every group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._axes import take_axes
from ._similar import similar_beside

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ._groups import Groups

CELL = 0.26
"""Width and height of a field, in inches."""
FAINT = 0.15
"""A dimension whose means are all below this share of the largest tells no group, and stands behind the others."""


def draw_heatmap(ax: Axes | None, z: np.ndarray, dims: list[int], groups: Groups, *, keep_order: bool) -> Axes:
    """Draw the means, in units of the prior's standard deviation: those of a dimension that is not used stay pale."""
    means = np.array([z[groups.codes == code][:, dims].mean(axis=0) for code in range(len(groups.names))])
    rows = np.arange(len(means)) if groups.ordered else similar_beside(means)
    columns = np.arange(len(dims)) if keep_order else _along_the_diagonal(means[rows])
    shown = means[rows][:, columns]
    longest = max(map(len, groups.names))
    ax = take_axes(ax, (CELL * len(dims) + 0.075 * longest + 1.6, CELL * len(groups.names) + 1.0))
    most = np.abs(shown).max() or 1.0
    image = ax.imshow(shown, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto", interpolation="none")
    ax.set_yticks(range(len(rows)), [groups.names[i] for i in rows])
    ax.set_xticks(range(len(dims)), [str(dims[i]) for i in columns])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("latent dimension")
    ax.figure.figure.colorbar(image, ax=ax, label="mean of z", shrink=min(1.0, 6 / len(rows)), aspect=12)
    return ax


def _along_the_diagonal(means: np.ndarray) -> np.ndarray:
    """Order of the dimensions by the group in which they are most extreme; those that tell none come last."""
    size = np.abs(means)
    most = size.max(axis=0)
    faint = most < FAINT * most.max()
    return np.lexsort((-most, np.where(faint, 0, size.argmax(axis=0)), faint))
