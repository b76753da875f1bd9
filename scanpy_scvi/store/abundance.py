"""Densities of samples -> AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .results import check_slot
from .uns import to_uns
from .write import actualise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import anndata as ad
    import numpy as np

SUFFIXES = ("_lfc", "_lfc_low", "_lfc_high")


def check_free(adata: ad.AnnData, slot: str) -> None:
    """Raise a ValueError for what could not be stored, or would overwrite something else."""
    beside = [("obsm", slot), *(("obs", slot + suffix) for suffix in SUFFIXES)]
    check_slot(adata, slot, {"params", "samples"}, found="holds no densities of samples", beside=beside)


def write_abundance(
    adata: ad.AnnData,
    slot: str,
    densities: np.ndarray,
    change: Sequence[np.ndarray | None] | None,
    entry: Mapping[str, Any],
) -> list[str]:
    """Write densities, and where there are any their ratio and its least and largest value; return what was written.

    What an earlier call left is removed.
    """
    stored = to_uns(dict(entry))
    actualise(adata)
    adata.obs.drop(columns=[slot + s for s in SUFFIXES if slot + s in adata.obs], inplace=True)
    adata.obsm[slot] = densities
    adata.uns[slot] = stored
    added = [f".obsm[{slot!r}]", f".uns[{slot!r}]"]
    for suffix, values in zip(SUFFIXES, change or (), strict=change is not None):
        if values is not None:
            adata.obs[slot + suffix] = values
            added.append(f".obs[{slot + suffix!r}]")
    return added
