"""Whether all that is in a file can be copied by its elements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py

from .checks import listed

if TYPE_CHECKING:
    from pathlib import Path

    from .opened import Opened

OF_ZARR = {".zgroup", ".zattrs", ".zmetadata", "zarr.json"}
"""Names beside elements in the folder of a Zarr group."""


def check_whole(opened: Opened, out: Path) -> None:
    """Raise a ValueError where something in a file would be lost when it is copied to `out`.

    HDF5 references point into the file that they are in, as those to the categories of anndata 0.7 do. The folder of a
    Zarr group may hold what is no part of it, which goes with the folder when it is replaced.
    """
    if isinstance(opened.group, h5py.Group):
        found = _references(opened.group) if out.suffix == ".h5ad" else []
        if found:
            msg = (
                f"{opened.path} has references between its parts ({listed(found)}), as anndata before 0.8 wrote them, "
                "which a copy cannot keep. Read it with anndata, and write it again."
            )
            raise ValueError(msg)
        return
    in_place = opened.path.resolve() == out.resolve()
    strangers = sorted(_strangers(opened.path, opened.group)) if in_place else []
    if strangers:
        msg = (
            f"{opened.path} holds what is no part of the Zarr group ({listed(strangers)}) and would be lost. Move it, "
            "or read the file with anndata."
        )
        raise ValueError(msg)


def _references(group: h5py.Group) -> list[str]:
    """Elements that are or have an HDF5 reference."""
    found = []

    def look(name: str, element: Any) -> None:
        types = [element.attrs.get_id(key).dtype for key in element.attrs]
        types += [element.dtype] if isinstance(element, h5py.Dataset) else []
        if any(h5py.check_ref_dtype(kind) is not None for kind in types):
            found.append(name)

    group.visititems(look)
    return found


def _strangers(folder: Path, group: Any, at: str = "") -> list[str]:
    """What lies in the folders of a group, and is neither an element of it nor part of one."""
    found, names = [], set(group)
    for entry in folder.iterdir():
        where = f"{at}{entry.name}"
        if entry.name in names:
            inner = group[entry.name]
            if not hasattr(inner, "shape"):
                found += _strangers(entry, inner, f"{where}/")
        elif entry.name not in OF_ZARR:
            found.append(where)
    return found
