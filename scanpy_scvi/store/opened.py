"""A file as an AnnData whose matrices stay on disk."""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata as ad
import h5py
from anndata.io import read_elem, sparse_dataset

from .._replace import before_of
from .checks import listed, short

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMATS = (".h5ad", ".zarr")
ON_DISK = {"array", "csr_matrix", "csc_matrix"}
SLOTS = ("layers", "obsm", "varm", "uns")
"""Parts of a file that a fit may add to or drop from, beside `obs` and `var`."""


class Opened(NamedTuple):
    """A file that is being read."""

    path: Path
    group: Any
    """Its root, of h5py or zarr."""
    adata: ad.AnnData
    """What is in it, without graphs (`obsp`, `varp`); of `raw` the matrix alone."""


def check_source(path: Path) -> None:
    """Raise a FileNotFoundError or ValueError for what is no file of a known kind."""
    check_suffix(path)
    before = before_of(path)
    if not path.exists() and before.exists():
        msg = (
            f"{path} does not exist, but {before} does: a crash came while the one was exchanged for the other. Rename "
            "it back."
        )
        raise FileNotFoundError(msg)
    if not path.exists():
        msg = f"{path} does not exist."
        raise FileNotFoundError(msg)


def check_suffix(path: Path) -> None:
    """Raise a ValueError for a name that does not tell one of the formats."""
    if path.suffix not in FORMATS:
        msg = f"{path} ends in {path.suffix or 'nothing'}, {' or '.join(FORMATS)} was expected."
        raise ValueError(msg)


@contextmanager
def open_file(path: Path, layer: str | None = None) -> Iterator[Opened]:
    """Open an `.h5ad` or a `.zarr` for reading; matrices and arrays of several columns stay on disk.

    A matrix stored by columns, from which cells cannot be read, is read whole where it is `layer`, or `X` for None.
    """
    check_source(path)
    if path.suffix == ".h5ad":
        try:
            file = h5py.File(path, "r")
        except OSError as error:
            msg = f"{path} cannot be read: {short(str(error), quoted=False, most=200)}. Is it an .h5ad, and complete?"
            raise OSError(msg) from error
        with file:
            yield Opened(path, file, _assemble(file, path, layer))
    else:
        import zarr  # not every installation has it

        group = zarr.open_group(path, mode="r", **_unconsolidated(zarr.open_group))
        yield Opened(path, group, _assemble(group, path, layer))


def _unconsolidated(opening: Any) -> dict[str, Any]:
    """Let zarr look at what there is, and not at the list made when the file was written; zarr 2 does so by itself."""
    return {"use_consolidated": False} if "use_consolidated" in inspect.signature(opening).parameters else {}


def _assemble(group: Any, path: Path, layer: str | None) -> ad.AnnData:
    lacking = [name for name in ("obs", "var") if name not in group or "_index" not in group[name].attrs]
    if lacking or any(encoding(group[name]) != "dataframe" for name in ("obs", "var")):
        msg = (
            f"{path} has no {listed(lacking or ['obs', 'var'])} as anndata 0.7 and later write them. Read it with "
            "anndata, and write it again."
        )
        raise ValueError(msg)
    counts = "X" if layer is None else f"layers/{layer}"
    parts = {
        slot: {name: _read(group[slot], name, counts, f"{slot}/{name}") for name in group[slot]}
        for slot in SLOTS
        if slot in group
    }
    x = _read(group, "X", counts, "X") if "X" in group else None
    # that advice on counts can look into it
    has_raw = "raw" in group and encoding(group["raw"]) == "raw" and encoding(group["raw"]["X"]) in ON_DISK
    raw = {"X": _read(group["raw"], "X", counts, "raw/X")} if has_raw else None
    return ad.AnnData(X=x, obs=read_elem(group["obs"]), var=read_elem(group["var"]), raw=raw, **parts)


def _read(group: Any, name: str, counts: str, where: str) -> Any:
    """Open an element that can stay on disk, or read it."""
    element = group[name]
    kind = encoding(element)
    if where.startswith("uns/") or kind not in ON_DISK or (kind == "csc_matrix" and where == counts):
        return read_elem(element)
    return element if kind == "array" else sparse_dataset(element)


def encoding(element: Any) -> str:
    """What anndata wrote an element as."""
    return str(element.attrs.get("encoding-type", ""))
