"""The reference of a mapping: an AnnData, or a file of which only what is needed is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad

if TYPE_CHECKING:
    from os import PathLike


def as_reference(reference: ad.AnnData | str | PathLike[str]) -> ad.AnnData:
    """Return the AnnData that was passed, or read one from a path (`.h5ad`, or a `.zarr` directory)."""
    if isinstance(reference, ad.AnnData):
        return reference
    path = Path(reference)
    return ad.read_zarr(path) if path.suffix == ".zarr" else ad.read_h5ad(path)
