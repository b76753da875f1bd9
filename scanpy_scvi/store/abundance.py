"""Densities of samples -> AnnData."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .keys import check_name
from .uns import to_uns
from .write import actualise, check_writable

if TYPE_CHECKING:
    import anndata as ad
    import numpy as np

SUFFIXES = ("_lfc", "_lfc_low", "_lfc_high")


def check_free(adata: ad.AnnData, slot: str) -> None:
    """Raise a ValueError for what could not be stored, or would overwrite something else."""
    check_name(slot, "key_added")
    check_writable(adata)
    entry = adata.uns.get(slot)
    ours = isinstance(entry, Mapping) and {"params", "samples"} <= set(entry)
    taken = [f"{place}[{slot!r}]" for place in ("uns", "obsm") if slot in getattr(adata, place)]
    taken += [f"obs[{slot + suffix!r}]" for suffix in SUFFIXES if slot + suffix in adata.obs]
    if taken and not ours:
        msg = (
            f"`adata.{taken[0]}` exists and holds no densities of samples, but would be overwritten. Pass another "
            "`key_added`, or delete it first."
        )
        raise ValueError(msg)


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
