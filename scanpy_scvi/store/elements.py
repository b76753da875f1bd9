"""Elements of AnnData files copied from one to another, without a matrix in memory."""

from __future__ import annotations

import shutil
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np
from anndata.io import read_elem, write_elem

from .opened import encoding

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

BLOCK = 2**24
"""Bytes that are copied at a time from one format to another."""
CHUNK = 2**20
"""Bytes of a chunk of a matrix that is written by rows, at most, but for one row."""
DICT = {"encoding-type": "dict", "encoding-version": "0.1.0"}
ARRAY = {"encoding-type": "array", "encoding-version": "0.2.0"}
GROUPS = {"anndata", "dict", "raw", "csr_matrix", "csc_matrix", "dataframe", "categorical", ""}
GROUPS |= {"nullable-integer", "nullable-boolean", "nullable-string-array"}
"""Encodings of groups that are copied by their elements."""
GZIP = {"compression": "gzip"}
"""How arrays are compressed in HDF5, where they are."""


class Folders(NamedTuple):
    """Where two Zarr groups lie, whose elements are folders."""

    source: Path
    target: Path


def copy_elements(
    source: Any, target: Any, leave: Collection[str], folders: Folders | None = None, at: str = ""
) -> None:
    """Copy a group and all in it but the elements to `leave`, named as in ``obsm/X_scvi``.

    From HDF5 to HDF5, and between two `folders` of Zarr, they are copied as they are stored, still compressed.
    """
    copy_attributes(source, target)
    for name in source:
        where = f"{at}{name}"
        if where in leave:
            continue
        if any(left.startswith(f"{where}/") for left in leave):
            copy_elements(source[name], target.require_group(name), leave, folders, f"{where}/")
        elif folders is not None:
            shutil.copytree(folders.source / where, folders.target / where)
        elif _is_hdf5(source) and _is_hdf5(target):
            source.copy(source[name], target, name)
        else:
            _translate(source[name], target, name)


def copy_attributes(source: Any, target: Any) -> None:
    """Copy the attributes of a group or array."""
    for name in source.attrs:
        value = source.attrs[name]
        if _is_hdf5(source) and _is_hdf5(target):
            target.attrs.create(name, value, dtype=source.attrs.get_id(name).dtype)
        else:
            target.attrs[name] = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _translate(element: Any, target: Any, name: str) -> None:
    """Copy an element from one format to the other."""
    is_array = hasattr(element, "shape")
    if not is_array and encoding(element) in GROUPS:
        inner = target.require_group(name)
        copy_attributes(element, inner)
        for part in element:
            _translate(element[part], inner, part)
    elif is_array and element.shape and element.dtype.kind in "biuf":
        options = GZIP if _is_hdf5(target) and is_compressed(element) else {}
        array = new_array(target, name, element.shape, element.dtype, options)
        copy_attributes(element, array)
        rows = max(1, BLOCK // _row_bytes(element.shape, element.dtype))
        for start in range(0, element.shape[0], rows):
            array[start : start + rows] = element[start : start + rows]
    else:
        write_elem(target, name, read_elem(element))


def is_compressed(array: Any) -> bool:
    """Whether an array of HDF5 or zarr is stored compressed."""
    if _is_hdf5(array):
        return array.compression is not None
    names = ("compressors", "compressor")  # zarr 3, zarr 2
    return bool(next(getattr(array, name) for name in names if hasattr(array, name)))


def new_array(
    group: Any, name: str, shape: tuple[int, ...], dtype: Any, options: Mapping[str, Any] | None = None
) -> Any:
    """Make an array that is to be written by rows; `options` are those of HDF5 alone."""
    rows = max(1, min(shape[0], CHUNK // _row_bytes(shape, dtype)))
    chunks = (rows, *(max(1, n) for n in shape[1:]))
    if _is_hdf5(group):
        return group.create_dataset(name, shape, dtype, chunks=chunks if prod(shape) else None, **(options or {}))
    make = group.create_array if hasattr(group, "create_array") else group.create_dataset  # zarr 3, zarr 2
    return make(name, shape=shape, dtype=dtype, chunks=chunks)


def _row_bytes(shape: tuple[int, ...], dtype: Any) -> int:
    return np.dtype(dtype).itemsize * max(1, prod(shape[1:]))


def _is_hdf5(element: Any) -> bool:
    return isinstance(element, (h5py.Group, h5py.Dataset))
