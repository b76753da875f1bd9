"""Find a fit in an AnnData, and say how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anndata import AnnData


def stored_fit(adata: AnnData, key: str) -> Mapping[str, Any]:
    """Return ``adata.uns[key]`` if a fit lies there, or raise a KeyError that lists the keys of fits."""
    fits = [k for k, v in adata.uns.items() if isinstance(v, Mapping) and {"spec", "schema", "history"} <= set(v)]
    if key in fits:
        return adata.uns[key]
    found = f"adata.uns[{key!r}] is not a fit" if key in adata.uns else f"adata.uns has no {key!r}"
    advice = f"Pass key={' or key='.join(map(repr, fits))}" if fits else "Run sv.tl.scvi(adata, …) first"
    msg = f"{found}. {advice}."
    raise KeyError(msg)


def convergence(adata: AnnData, key: str = "scvi") -> dict[str, Any]:
    """Return how a fit ended: a word, a sentence and numbers.

    Parameters
    ----------
    adata
        Annotated data with a fit.
    key
        The ``key_added`` of the fit.

    Returns
    -------
    A dict with ``verdict`` (``"converged"``, ``"still improving"``, ``"KL collapsed"``, ``"diverged"``,
    ``"interrupted"`` or ``"imported"``), ``message``, and the numbers that the verdict rests on, among them
    ``best_epoch`` and ``best_elbo`` (nats per cell, of held-out cells where there are some).

    Raises
    ------
    KeyError
        If there is no fit under that key.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=200, density=0.3)
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=5, progress=False)
    >>> sv.get.convergence(adata)["best_epoch"] <= 5
    True
    """
    return dict(stored_fit(adata, key)["convergence"])
