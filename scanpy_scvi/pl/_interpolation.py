"""A path through latent space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np

from ._axes import BLACK, GREY, PALETTE, finish, take_axes

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

N_GENES = 6
"""Genes drawn where none are named."""
LEAST = 0.5
"""Expression, in counts per 10,000, below which changes do not make a gene worth drawing."""


def interpolation(
    adata: AnnData,
    genes: Sequence[str] | str | None = None,
    *,
    key: str = "scvi_interpolation",
    ax: Sequence[Axes] | None = None,
    show: bool | None = None,
    save: str | bool | None = None,
    return_fig: bool = False,
) -> list[Axes] | Figure | None:
    """Draw the expression of genes along a path between two cells or groups, and the density below it.

    The band holds the middle nine tenths of what is usual for cells, the dashed line the median. Where the density of
    the path is far below the band, no cells are near, and what is drawn above was never seen.

    Parameters
    ----------
    adata
        Annotated data with the result of :func:`scanpy_scvi.tl.interpolate`.
    genes
        Genes to draw; by default the six that change by the largest factor, from at least half a count per 10,000.
    key
        The ``key_added`` of :func:`scanpy_scvi.tl.interpolate`.
    ax
        Two axes to draw in, for expression and density; by default those of a new figure.
    show
        Whether to show the figure at once; ``None`` follows ``sc.settings.autoshow``.
    save
        Whether to save the figure under ``sc.settings.figdir``; a string is added to the file's name.
    return_fig
        Whether to return the figure in place of its axes.

    Returns
    -------
    The two axes as a list or the figure, or ``None`` where it was shown.

    Raises
    ------
    KeyError
        If there is no such result, or no such gene in it.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=200, density=0.3)
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=5, progress=False)
    >>> sv.tl.interpolate(adata, source="label_0", target="label_1", groupby="label", n_steps=20)
    >>> len(sv.pl.interpolation(adata, ["gene_0", "gene_1"], show=False))
    2
    """
    entry = adata.uns.get(key)
    if not (isinstance(entry, Mapping) and "log_density" in entry):
        found = [k for k, v in adata.uns.items() if isinstance(v, Mapping) and {"position", "log_density"} <= set(v)]
        advice = f"Pass key={' or key='.join(map(repr, found))}." if found else "Run sv.tl.interpolate first."
        msg = f"`adata.uns[{key!r}]` holds no interpolation. {advice}"
        raise KeyError(msg)
    known = {str(name): i for i, name in enumerate(entry["genes"])}
    chosen = _changing(entry) if genes is None else [genes] if isinstance(genes, str) else list(genes)
    missing = [name for name in chosen if name not in known]
    if missing:
        msg = f"The genes {missing[:3]} are not in `adata.uns[{key!r}]['genes']`. Choose among those."
        raise KeyError(msg)
    top, bottom = _axes(ax)
    position, expression = np.asarray(entry["position"]), np.asarray(entry["expression"])
    for i, name in enumerate(chosen):
        dashes = "-" if i < len(PALETTE) else "--"
        top.plot(position, expression[:, known[name]], dashes, color=PALETTE[i % len(PALETTE)], label=name)
    params = entry["params"]
    per = f"counts per {float(params['library_size']):,.0f}"
    top.set(yscale="log", ylabel=per, title=f"{params['source']} → {params['target']}")
    top.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    top.tick_params(labelbottom=False)
    low, middle, high = entry["usual_log_density"]
    bottom.axhspan(low, high, color=GREY, alpha=0.25, linewidth=0, label="usual for cells")
    bottom.axhline(middle, color=GREY, linestyle="--")
    bottom.plot(position, entry["log_density"], color=BLACK, label="path")
    bottom.set(xlabel="position on the path", ylabel="log density", xlim=(0, 1))
    bottom.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return finish([top, bottom], "interpolation", show=show, save=save, return_fig=return_fig)


def _changing(entry: Mapping[str, Any]) -> list[str]:
    """Genes that change by the largest factor among those that are expressed somewhere on the path."""
    scale = float(entry["params"]["library_size"]) / 1e4
    expression = np.asarray(entry["expression"], float)
    low, high = (f(expression, axis=0) + LEAST * scale for f in (np.min, np.max))
    return [str(entry["genes"][i]) for i in np.argsort(-(high / low), kind="stable")[:N_GENES]]


def _axes(ax: Sequence[Axes] | None) -> tuple[Axes, Axes]:
    """Expression above density."""
    if ax is None:
        ax = plt.subplots(2, 1, figsize=(6, 4.8), height_ratios=(2, 1), sharex=True, layout="constrained")[1]
    if len(ax) != 2:
        msg = f"`ax` has {len(ax)} axes, but two are needed: for expression, and for the density."
        raise ValueError(msg)
    return take_axes(ax[0]), take_axes(ax[1])
