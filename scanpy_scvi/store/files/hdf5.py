"""HDF5: no link leads out of the part that is read, and no dataset claims far more than it stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from ..checks import short
from .tally import FREE, Tally, check_path, product

if TYPE_CHECKING:
    from collections.abc import Iterable

FEWEST, MOST = 64, 2**16
"""Strings that are read at a time, to see how long they are: fewer where each could be long."""
ON_DISK = np.dtype([("length", "<u4"), ("heap", "<u8"), ("number", "<u4")])
"""How a string is found on disk."""
AT_ONCE = 2**28
"""Bytes that these may take, if they are no more than the fewest."""


def check_hdf5(file: h5py.File, members: Iterable[tuple[str, ...]]) -> None:
    """Raise a ValueError unless some members of a file, given by their paths, can be read in bounded time and memory.

    Refused are links other than hard ones, objects that are linked twice, data in other files, and claims that the
    stored bytes do not bear out. Strings may take as much as the file has beside its datasets.
    """
    tally, seen = Tally(), set[Any]()
    room = _room(file)
    at_once, left = min(max(AT_ONCE // max(room, 1), FEWEST), MOST), room + FREE
    for *above, name in members:
        group = file
        for outer in above:
            group = _linked(group, outer, outer)
            _check_attributes(group, outer)
        for where, dataset in _datasets(group, name, tally, seen):
            _check_dataset(dataset, where, tally)
            left -= _length_of_strings(dataset, where, left, at_once)


def _datasets(group: h5py.Group, name: str, tally: Tally, seen: set[Any]) -> Iterable[tuple[str, h5py.Dataset]]:
    """All datasets below a member of a group."""
    open_ = [(group, name, "", 0)]
    while open_:
        group, name, above, depth = open_.pop()
        where = f"{above}/{name}" if above else name
        tally.visit(where, depth)
        item = _linked(group, name, where)
        info = h5py.h5o.get_info(item.id)
        if (address := (info.fileno, info.addr)) in seen:
            msg = f"{short(where)} is linked twice in the file, which AnnData never does. The file is damaged."
            raise ValueError(msg)
        seen.add(address)
        _check_attributes(item, where)
        if isinstance(item, h5py.Group):
            open_ += [(item, inner, where, depth + 1) for inner in item]
        else:
            yield where, item


def _linked(group: h5py.Group, name: str, where: str) -> h5py.Group | h5py.Dataset:
    """Follow a hard link to a group or dataset; anything else is a ValueError."""
    if not isinstance(group, h5py.Group):
        msg = f"{short(where)} was to lie in a group, but lies in an array. The file is damaged."
        raise ValueError(msg)
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        msg = f"{short(where)} is a link to somewhere else, which is not followed. The file was not read."
        raise ValueError(msg)
    item = group[name]
    if not isinstance(item, (h5py.Group, h5py.Dataset)):
        msg = f"{short(where)} is neither a group nor an array. The file is damaged."
        raise ValueError(msg)
    return item


def _check_attributes(item: h5py.Group | h5py.Dataset, where: str) -> None:
    """Raise a ValueError for attributes that would lead a reader elsewhere."""
    for name in ("_index", "column-order"):
        if name in item.attrs:
            for column in np.ravel(item.attrs[name]):
                check_path(column, where)
    if isinstance(item, h5py.Dataset) and "categories" in item.attrs:
        msg = (
            f"{short(where)} was written by an old anndata. Open the file with anndata, write it again, and pass that."
        )
        raise ValueError(msg)


def _check_dataset(dataset: h5py.Dataset, where: str, tally: Tally) -> None:
    if dataset.external or dataset.is_virtual:
        msg = f"{short(where)} has its data in another file, which is not opened. The file was not read."
        raise ValueError(msg)
    if h5py.check_ref_dtype(dataset.dtype) is not None:
        msg = f"{short(where)} holds references, which are not followed. The file was not read."
        raise ValueError(msg)
    size = 0 if dataset.shape is None else product(dataset.shape)
    chunk = product(dataset.chunks) if dataset.chunks else 0
    tally.add(where, max(size, chunk if size else 0) * dataset.dtype.itemsize, dataset.id.get_storage_size())


def _room(file: h5py.File) -> int:
    """Bytes of the file that no dataset takes: what strings can lie in."""
    taken = 0

    def add(_: str, item: h5py.Group | h5py.Dataset) -> None:
        nonlocal taken
        if isinstance(item, h5py.Dataset):
            taken += item.id.get_storage_size()

    file.visititems(add)
    return max(0, file.id.get_filesize() - taken)


def _length_of_strings(dataset: h5py.Dataset, where: str, most: int, at_once: int) -> int:
    """Characters of all strings of a dataset, some of which may lie in the same place; at most `most`."""
    if not dataset.dtype.hasobject or dataset.shape is None:
        return 0
    lengths = _lengths_on_disk(dataset)
    if lengths is not None:
        _check_length(int(lengths.sum(dtype=np.int64)), most, where)
        return int(lengths.sum(dtype=np.int64))
    total = 0
    for start in range(0, dataset.shape[0] if dataset.ndim else 1, at_once):
        part = np.asarray(dataset[start : start + at_once] if dataset.ndim else dataset[()])
        fields = [part] if part.dtype.names is None else [part[name] for name in part.dtype.names]
        total += sum(_length(value) for field in fields if field.dtype.hasobject for value in field.ravel())
        _check_length(total, most, where)
    return total


def _check_length(total: int, most: int, where: str) -> None:
    if total > most:
        msg = f"{short(where)} has strings longer than the file. It is damaged, and was not read."
        raise ValueError(msg)


def _lengths_on_disk(dataset: h5py.Dataset) -> np.ndarray | None:
    """Lengths of strings, which lie on disk before the places of their characters; None where they are compressed."""
    offset, size = dataset.id.get_offset(), product(dataset.shape)
    if offset is None or dataset.file.userblock_size or dataset.dtype.names is not None:
        return None
    if dataset.id.get_storage_size() != size * ON_DISK.itemsize:
        return None
    with open(dataset.file.filename, "rb") as file:
        file.seek(offset)
        content = file.read(size * ON_DISK.itemsize)
    if len(content) != size * ON_DISK.itemsize:
        return None
    return np.frombuffer(content, ON_DISK)["length"]


def _length(value: Any) -> int:
    return value.nbytes if isinstance(value, np.ndarray) else len(value)
