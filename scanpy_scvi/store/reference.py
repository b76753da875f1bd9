"""The reference of a mapping: an AnnData, or a file of which only what is needed is read."""

from __future__ import annotations

import inspect
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem

from .checks import listed, short
from .files import check_hdf5, check_zarr
from .files.tally import check_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from os import PathLike

NEEDED = ("obs", "obsm", "uns")
"""What is read whole; of `var` the names alone, of counts and layers nothing."""


def as_reference(reference: ad.AnnData | str | PathLike[str]) -> ad.AnnData:
    """Return the AnnData that was passed, or read what a reference needs from a path (`.h5ad`, or a `.zarr` directory).

    From a path come `obs`, `obsm`, `uns` and the names of genes, without `X`, layers and all else. The file may come
    from anywhere: links out of it are not followed, nothing is unpickled, and an array that claims far more than is
    stored of it is not read.

    Raises
    ------
    FileNotFoundError
        Where there is no such file.
    TypeError, ValueError
        For anything else that is no AnnData, or cannot be read safely.
    """
    if isinstance(reference, ad.AnnData):
        return reference
    if not isinstance(reference, (str, os.PathLike)):
        msg = f"The reference is of type {type(reference).__name__}, but an AnnData or the path of a file was expected."
        raise TypeError(msg)
    path = Path(reference)
    if path.suffix not in {".h5ad", ".zarr"}:
        msg = f"The reference {short(str(path))} ends in {path.suffix!r}, but '.h5ad' or '.zarr' was expected."
        raise ValueError(msg)
    if not path.exists():
        msg = f"There is no file {short(str(path))} to read the reference from."
        raise FileNotFoundError(msg)
    with _clear_errors(path):
        return _read_zarr(path) if path.suffix == ".zarr" else _read_hdf5(path)


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    """Turn what readers raise for a damaged file into a ValueError that names it."""
    name = short(str(path))
    try:
        yield
    except MemoryError as error:
        msg = f"The reference {name} does not fit into memory."
        raise ValueError(msg) from error
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        msg = f"The reference {name} cannot be read: {short(reason, quoted=False, most=300)}"
        raise ValueError(msg) from error


def _read_hdf5(path: Path) -> ad.AnnData:
    with h5py.File(path, "r") as file:
        check_is_anndata(file)
        check_hdf5(file, [("var", index_name(file["var"].attrs)), *_present(file)])
        return _assemble(file)


def _read_zarr(path: Path) -> ad.AnnData:
    import zarr  # not every installation has it

    new = "use_consolidated" in inspect.signature(zarr.open_group).parameters
    options: dict[str, Any] = {"use_consolidated": False} if new else {}  # what is read is what was looked at
    check_zarr(path, [("var",)], contents=False)
    group = zarr.open_group(path, mode="r", **options)
    check_is_anndata(group)
    check_zarr(path, [("var", index_name(group["var"].attrs)), *_present(group)])
    return _assemble(group)


def check_is_anndata(group: Any) -> None:
    """Raise a ValueError for a file of something else."""
    lacking = [name for name in ("obs", "var", "uns") if name not in group]
    if lacking or "_index" not in group["var"].attrs:
        msg = f"it is no AnnData, which has {listed(lacking)}." if lacking else "its `var` has no names."
        raise ValueError(msg)


def index_name(attributes: Mapping[str, Any]) -> str:
    """Which column of a stored table is its index."""
    found = attributes["_index"]
    check_path(found, "var")
    return str(found)


def _present(group: Any) -> list[tuple[str]]:
    return [(name,) for name in NEEDED if name in group]


def _assemble(group: Any) -> ad.AnnData:
    """Read what was looked through."""
    obs = read_elem(group["obs"])
    names = read_elem(group["var"][index_name(group["var"].attrs)])
    var = pd.DataFrame(index=pd.Index(np.asarray(names, dtype=object).astype(str)))
    obsm = {name: read_elem(group["obsm"][name]) for name in group["obsm"]} if "obsm" in group else {}
    return ad.AnnData(obs=obs, var=var, obsm=obsm, uns=read_elem(group["uns"]))
