"""Zarr directories: no link leads out, no codec unpickles, and no array claims far more than it stores."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checks import short
from .tally import Tally, check_path, product

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
MOST_METADATA = 2**22
"""Bytes of a file of metadata."""
CODECS = frozenset(
    (
        *("blosc", "zlib", "gzip", "zstd", "lz4", "lzma", "bz2"),
        *("vlen-utf8", "vlen-bytes", "shuffle", "delta", "fixedscaleoffset"),
        *("bytes", "transpose", "crc32c", "sharding_indexed"),
    )
)
"""What may encode an array; of those in use, `pickle` and `msgpack2` among others are not here."""
POINTER = 8


def check_zarr(folder: Path, members: Iterable[tuple[str, ...]], *, contents: bool = True) -> None:
    """Raise a ValueError unless some members of a store can be read in bounded time and memory, without unpickling.

    Parameters
    ----------
    folder
        The directory.
    members
        Paths of groups and arrays in it.
    contents
        Whether to look at what lies in these groups too.
    """
    tally = Tally()
    for path in members:
        for outer in (folder.joinpath(*path[:n]) for n in range(len(path))):
            _check_links(outer, outer.name)
    open_ = [(folder.joinpath(*path), "/".join(path), 0) for path in members]
    while open_:
        here, where, depth = open_.pop()
        tally.visit(where, depth)
        _check_links(here, where)
        array = _metadata(here, where)
        if array is not None:
            _check_codecs(array, where)
            tally.add(where, _claimed(array, where), _stored(here, where))
            continue
        inside = (inner for inner in here.iterdir() if contents and inner.name not in METADATA)
        open_ += [(inner, f"{where}/{inner.name}", depth + 1) for inner in inside]


def _check_links(path: Path, where: str) -> None:
    if not path.is_dir():
        msg = f"{short(where)} is neither a group nor an array. The store is damaged."
        raise ValueError(msg)
    if path.is_symlink() or any(inner.is_symlink() for inner in path.iterdir()):
        msg = f"{short(where)} is or has a link to somewhere else, which is not followed. It was not read."
        raise ValueError(msg)


def _metadata(folder: Path, where: str) -> dict[str, Any] | None:
    """Metadata of an array; None for a group, whose columns must lie in it."""
    found = {name: _json(folder / name, where) for name in METADATA if (folder / name).is_file()}
    new = found.get("zarr.json", {})
    attributes = new.get("attributes", found.get(".zattrs", {}))
    for name in ("_index", "column-order"):
        columns = attributes.get(name, []) if isinstance(attributes, dict) else []
        for column in columns if isinstance(columns, list) else [columns]:
            check_path(column, where)
    if ".zarray" in found or new.get("node_type") == "array":
        if isinstance(attributes, dict) and "categories" in attributes:
            msg = f"{short(where)} was written by an old anndata. Open it with anndata, write it again, and pass that."
            raise ValueError(msg)
        return found.get(".zarray", new)
    if ".zgroup" not in found and new.get("node_type") != "group":
        msg = f"{short(where)} is neither a group nor an array. The store is damaged."
        raise ValueError(msg)
    return None


def _json(path: Path, where: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size <= MOST_METADATA else None
    except (RecursionError, ValueError):
        content = None
    if not isinstance(content, dict):
        msg = f"{short(where)} has metadata that cannot be read. The store is damaged."
        raise ValueError(msg)
    return content


def _check_codecs(array: Any, where: str) -> None:
    """Raise a ValueError for a codec that is not known to be harmless."""
    compressor = array.get("compressor")
    given = [*(array.get("filters") or []), *([] if compressor is None else [compressor]), *array.get("codecs", [])]
    for codec in given:
        name = codec.get("id", codec.get("name")) if isinstance(codec, dict) else codec
        if name not in CODECS:
            msg = f"{short(where)} is encoded by {short(str(name))}, which may run code or is unknown. It was not read."
            raise ValueError(msg)
        inner = codec.get("configuration") if isinstance(codec, dict) else None
        if isinstance(inner, dict):
            for nested in ("codecs", "index_codecs"):
                _check_codecs({"codecs": inner.get(nested, [])}, where)


def _claimed(array: dict[str, Any], where: str) -> int:
    """Bytes of an array, or of one of its chunks if that is more."""
    try:
        grid = array["chunk_grid"]["configuration"]["chunk_shape"] if "chunk_grid" in array else array["chunks"]
        shape = [int(n) for n in array["shape"]]
        size, chunk = product(shape), product(grid)
        itemsize = _itemsize(array["data_type"] if "data_type" in array else array["dtype"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"{short(where)} has metadata of no array ({short(str(error))}). The store is damaged."
        raise ValueError(msg) from error
    if min([*shape, chunk]) < 0:
        msg = f"{short(where)} has a negative size. The store is damaged."
        raise ValueError(msg)
    return (max(size, chunk) if size else 0) * itemsize


def _itemsize(kind: Any) -> int:
    """Bytes of an item, given the type in either version's words."""
    if isinstance(kind, dict):
        options = kind.get("configuration", {})
        if "length_bytes" in options:
            return int(options["length_bytes"])
        if "fields" in options:
            return sum(_itemsize(field[1]) for field in options["fields"])
        return _itemsize(kind["name"])
    if isinstance(kind, list):
        return sum(_itemsize(field[1]) * product(field[2] if len(field) > 2 else ()) for field in kind)
    if kind in {"string", "|O", "O", "variable_length_bytes", "bytes"}:
        return POINTER
    return np.dtype(kind).itemsize


def _stored(folder: Path, where: str) -> int:
    """Bytes of all chunks."""
    total, open_ = 0, [folder]
    while open_:
        here = open_.pop()
        _check_links(here, where)
        for inner in here.iterdir():
            if inner.is_dir():
                open_.append(inner)
            elif inner.name not in METADATA:
                total += inner.stat().st_size
    return total
