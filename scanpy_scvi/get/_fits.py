"""Find a fit in an AnnData, and say how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData

LONGEST = 60
"""Characters of a name that a message shows."""


def stored_fit(adata: AnnData, key: str) -> Mapping[str, Any]:
    """Return ``adata.uns[key]`` if a fit lies there, or raise a KeyError that lists the keys of fits."""
    if not isinstance(key, str):
        msg = f"`key` is of type {type(key).__name__}, but the name of a fit was expected."
        raise TypeError(msg)
    fits = [k for k, v in adata.uns.items() if _is_mapping(v) and {"schema", "history", "convergence"} <= set(v)]
    if key in fits:
        return adata.uns[key]
    shown = repr(key if len(key) <= LONGEST else f"{key[:LONGEST]}…")
    found = f"adata.uns[{shown}] is not a fit" if key in adata.uns else f"adata.uns has no {shown}"
    advice = (
        f"Pass key={' or key='.join(repr(fit[:LONGEST]) for fit in fits[:10])}"
        if fits
        else "Run sv.tl.scvi(adata, …) first"
    )
    msg = f"{found}. {advice}."
    raise KeyError(msg)


def field(adata: AnnData, key: str, name: str) -> Mapping[str, Any]:
    """Return a part of a fit that is a dictionary, or raise a TypeError."""
    found = stored_fit(adata, key)[name]
    if not _is_mapping(found):
        kind = type(found).__name__
        msg = f"adata.uns[{key!r}][{name!r}] is of type {kind}, but a dictionary was expected. It is damaged."
        raise TypeError(msg)
    return found


def _is_mapping(value: object) -> bool:
    return issubclass(type(value), Mapping)  # told by the type alone: what a file holds is not asked


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
    found = dict(field(adata, key, "convergence"))
    for name, value in found.items():
        if not issubclass(type(value), (str, bool, int, float, np.number, np.bool_)):
            msg = (
                f"adata.uns[{key!r}]['convergence'][{str(name)[:LONGEST]!r}] is of type {type(value).__name__}, but "
                "numbers and text were expected. It is damaged."
            )
            raise TypeError(msg)
    return found
