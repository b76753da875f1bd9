"""The course of a fit, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ._fits import LONGEST, field

if TYPE_CHECKING:
    from anndata import AnnData

ORDER = ("epoch", "train_elbo", "validation_elbo", "kl", "kl_weight", "learning_rate")  # files sort by name


def history(adata: AnnData, key: str = "scvi") -> pd.DataFrame:
    """Return what happened in each epoch of a fit.

    Parameters
    ----------
    adata
        Annotated data with a fit.
    key
        The ``key_added`` of the fit.

    Returns
    -------
    A table with one row per epoch, counted from 1 (the index), and the columns ``train_elbo``, ``validation_elbo``
    (of held-out cells; NaN where none are held out) and ``kl`` in nats per cell, ``kl_weight`` and ``learning_rate``;
    of a fit with penalties also ``penalty``, what these added to the loss of the training cells.

    Raises
    ------
    KeyError
        If there is no fit under that key.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=200, density=0.3)
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=5, progress=False)
    >>> sv.get.history(adata)["train_elbo"].shape
    (5,)
    """
    stored = field(adata, key, "history")
    for name, values in stored.items():
        if not issubclass(type(values), np.ndarray) or values.dtype.kind not in "biuf" or values.ndim != 1:
            found = f"of type {type(values).__name__}" if not isinstance(values, np.ndarray) else str(values.dtype)
            msg = (
                f"adata.uns[{key!r}]['history'][{str(name)[:LONGEST]!r}] is {found}, but one number for each epoch was "
                "expected. It is damaged."
            )
            raise TypeError(msg)
    if "epoch" not in stored or len({len(values) for values in stored.values()}) != 1:
        msg = f"adata.uns[{key!r}]['history'] has no epochs, or arrays of unequal length. It is damaged."
        raise ValueError(msg)
    names = sorted(stored, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    return pd.DataFrame({name: np.asarray(stored[name]) for name in names}).set_index("epoch")
