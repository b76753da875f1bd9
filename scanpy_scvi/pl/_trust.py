"""Trust in cells, in an embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ._axes import finish
from ._embedding import coordinates, scatter_values
from ._panels import take_panels

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = {"trust": True, "bound_percentile": True, "novelty": False, "latent_uncertainty": False}
"""What can be drawn, and whether a low value is what should catch the eye."""
WIDTH, HEIGHT = 4.2, 3.6
MOST_IN_ROW = 2


def trust(
    adata: AnnData,
    basis: str = "umap",
    *,
    columns: Sequence[str] = tuple(COLUMNS),
    key: str = "scvi",
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
    save: str | bool | None = None,
    return_fig: bool = False,
) -> list[Axes] | Figure | None:
    """Draw an embedding coloured by what :func:`scanpy_scvi.tl.trust` wrote, one panel for each column.

    The darker a cell, the less it is to be trusted, in every panel; the darkest are drawn on top.

    Parameters
    ----------
    adata
        Annotated data with the columns of :func:`scanpy_scvi.tl.trust`.
    basis
        Embedding in `obsm`, with or without ``X_``.
    columns
        Which to draw: `"trust"`, `"bound_percentile"`, `"novelty"`, `"latent_uncertainty"`.
    key
        The ``key_added`` of :func:`scanpy_scvi.tl.trust`.
    ax
        Axes to draw in, one for each column; by default those of a new figure.
    show
        Whether to show the figure at once; ``None`` follows ``sc.settings.autoshow``.
    save
        Whether to save the figure under ``sc.settings.figdir``; a string is added to the file's name.
    return_fig
        Whether to return the figure in place of its axes.

    Returns
    -------
    The list of axes or the figure, or ``None`` where it was shown.

    Raises
    ------
    KeyError
        If there are no such columns, or no such embedding.
    ValueError
        If a column is unknown, or there are not as many axes as columns.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=200, density=0.3)
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=5, progress=False)
    >>> sv.tl.trust(adata)
    >>> [ax.get_title() for ax in sv.pl.trust(adata, "X_scvi", show=False)]
    ['trust', 'bound percentile', 'novelty', 'latent uncertainty']
    """
    columns = [columns] if isinstance(columns, str) else list(columns)
    unknown = [name for name in columns if name not in COLUMNS]
    if unknown or not columns:
        msg = f"`columns` has {unknown or 'nothing'}, but some of {', '.join(map(repr, COLUMNS))} were expected."
        raise ValueError(msg)
    missing = [name for name in columns if f"{key}_{name}" not in adata.obs]
    if missing:
        msg = f"`adata.obs` has no {f'{key}_{missing[0]}'!r}. Run sv.tl.trust first, or pass its `key_added` as `key`."
        raise KeyError(msg)
    at = coordinates(adata, basis, "Run sc.pp.neighbors(adata, use_rep='X_scvi') and sc.tl.umap, or pass `basis`.")
    axes = _axes(ax, len(columns))
    for name, panel in zip(columns, axes, strict=True):
        values = adata.obs[f"{key}_{name}"].to_numpy(float)
        low_is_bad = COLUMNS[name]
        scatter_values(
            panel,
            at,
            values,
            order=np.argsort(-values if low_is_bad else values, kind="stable"),
            cmap="viridis" if low_is_bad else "viridis_r",
            limits=_inner(values) if name == "latent_uncertainty" else (0.0, 1.0),
        )
        panel.set_title(name.replace("_", " "))
    return finish(axes, "trust", show=show, save=save, return_fig=return_fig)


def _inner(values: np.ndarray) -> tuple[float, float]:
    """All but a hundredth at either end."""
    low, high = np.quantile(values, (0.01, 0.99))
    return float(low), float(high)


def _axes(ax: Axes | Sequence[Axes] | None, n: int) -> list[Axes]:
    """As many axes as panels."""
    if ax is None:
        return take_panels(n, MOST_IN_ROW, (WIDTH, HEIGHT))
    axes = list(ax) if isinstance(ax, (Sequence, np.ndarray)) else [ax]
    if len(axes) != n:
        msg = f"`ax` has {len(axes)} axes, but {n} panels are to be drawn. Pass as many."
        raise ValueError(msg)
    return axes
