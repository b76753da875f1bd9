"""Cells x genes in a file, read some consecutive cells at a time."""

from __future__ import annotations

import sys
import zlib
from typing import TYPE_CHECKING, Any, Protocol

import anndata as ad
import h5py
import numpy as np
from scipy import sparse

from .dask_rows import DaskRows, is_dask

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_AT_ONCE = 2**24
"""Bytes that are read at a time, about."""
SMALL_CSC = 2**28
"""Bytes of a matrix that is stored by genes up to which it is read whole and turned around."""
UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, EOFError, zlib.error)
"""What h5py, zarr and its codecs raise for bytes that they cannot decode."""


class StoredRows(Protocol):
    """A matrix in a file."""

    shape: tuple[int, int]
    where: str
    """Its place, for messages."""
    together: int
    """Consecutive cells of one chunk of the file."""

    def at_once(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Split a range of cells into ranges that take little memory."""

    def read(self, start: int, stop: int) -> sparse.csr_array:
        """Consecutive cells, as they are stored."""


class SparseRows:
    """CSR as AnnData stores it: `data`, `indices` and `indptr`, of which the last is held in memory."""

    def __init__(self, group: Any, shape: tuple[int, int], where: str) -> None:
        self.shape, self.where = shape, where
        self._data, self._indices = group["data"], group["indices"]
        self._indptr = _part(group["indptr"], 0, shape[0] + 1).astype(np.int64)
        self._check(group["indptr"])
        chunk = min(_chunk(self._data), _chunk(self._indices))
        self.together = max(1, int(chunk * shape[0] / max(1, self.n_entries)))

    @property
    def n_entries(self) -> int:
        """Stored values."""
        return int(self._indptr[-1])

    def at_once(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Split a range of cells into ranges that take little memory."""
        size = self._data.dtype.itemsize + self._indices.dtype.itemsize
        while start < stop:
            limit = self._indptr[start] + max(1, MOST_AT_ONCE // size)
            end = int(np.searchsorted(self._indptr, limit, side="right")) - 1
            end = min(max(end, start + 1), stop)
            yield start, end
            start = end

    def read(self, start: int, stop: int) -> sparse.csr_array:
        """Consecutive cells, as they are stored."""
        first, end = int(self._indptr[start]), int(self._indptr[stop])
        data = _part(self._data, first, end)
        indices = _part(self._indices, first, end)
        n_genes = self.shape[1]
        if len(indices) and (indices.min() < 0 or indices.max() >= n_genes):
            at = int(np.argmax((indices < 0) | (indices >= n_genes)))
            msg = (
                f"{_where(self._indices)} has column {indices[at]} at position {first + at}, but the matrix has "
                f"columns 0 to {n_genes - 1}. The file is damaged."
            )
            raise ValueError(msg)
        indptr = (self._indptr[start : stop + 1] - first).astype(np.int32)
        return sparse.csr_array((data, indices.astype(np.int32, copy=False), indptr), shape=(stop - start, n_genes))

    def _check(self, stored: Any) -> None:
        """Raise a ValueError unless the starts of rows make sense and everything that they point to is there."""
        indptr, n_cells, where = self._indptr, self.shape[0], _where(stored)
        falls = np.flatnonzero(np.diff(indptr) < 0)
        if stored.shape != (n_cells + 1,):
            found = f"{where} has {stored.shape[0]} values, but {n_cells} cells need {n_cells + 1}"
        elif indptr[0] != 0:
            found = f"{where} begins with {indptr[0]}, but 0 was expected"
        elif len(falls):
            at = int(falls[0])
            found = f"{where} falls from {indptr[at]} to {indptr[at + 1]} at cell {at}, but must never fall"
        elif self._data.shape != self._indices.shape or self._data.shape != (indptr[-1],):
            found = (
                f"{self.where} has {self._data.shape[0]} values and {self._indices.shape[0]} columns of values, but "
                f"its last row ends at {indptr[-1]}"
            )
        else:
            for array in (stored, self._data, self._indices):
                _check_complete(array)
            return
        msg = f"{found}. The file is damaged."
        raise ValueError(msg)


class DenseRows:
    """A dense array."""

    def __init__(self, array: Any, where: str) -> None:
        self.shape, self.where, self._array = tuple(array.shape), where, array
        self.together = 1 if array.chunks is None else int(array.chunks[0])
        _check_complete(array)

    def at_once(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Split a range of cells into ranges that take little memory, and end where chunks end."""
        step = max(1, MOST_AT_ONCE // (self.shape[1] * self._array.dtype.itemsize))
        step = step // self.together * self.together or step
        while start < stop:
            end = min(start - start % step + step, stop)
            yield start, end
            start = end

    def read(self, start: int, stop: int) -> sparse.csr_array:
        """Consecutive cells."""
        return sparse.csr_array(_part(self._array, start, stop))


def stored_rows(matrix: object, name: str) -> StoredRows | None:
    """A matrix of which rows are read when they are wanted, of a file or dask; None for one in memory or anything else.

    Raises
    ------
    ValueError
        If a large matrix is stored by genes, or if it is damaged.
    """
    if isinstance(matrix, ad.abc.CSRDataset):
        return SparseRows(matrix.group, matrix.shape, _where(matrix.group))
    if isinstance(matrix, ad.abc.CSCDataset):
        n_bytes = 8 * matrix.group["data"].shape[0]
        if n_bytes > SMALL_CSC:
            msg = (
                f"`{name}` lies in a file by genes (CSC, {n_bytes / 1e9:.1f} GB), but is read by cells. "
                f"Store it by cells: read it into memory once, `{name} = {name}.tocsr()`, and write it again."
            )
            raise ValueError(msg)
        return None
    if is_dask(matrix):
        return DaskRows(matrix, f"`{name}`", MOST_AT_ONCE)
    is_array = isinstance(matrix, h5py.Dataset) or _is_zarr(matrix)
    return DenseRows(matrix, _where(matrix)) if is_array else None


def _is_zarr(matrix: object) -> bool:
    """Whether something is an array of zarr, which is optional."""
    return "zarr" in sys.modules and isinstance(matrix, sys.modules["zarr"].Array)


def _where(item: Any) -> str:
    """Place of a group or array, for messages."""
    file = (
        item.file.filename if isinstance(item, (h5py.Group, h5py.Dataset)) else str(item.store).removeprefix("file://")
    )
    return f"{item.name} of {str(file)!r}"


def _chunk(array: Any) -> int:
    """Values that are read and decoded together."""
    return 1 if array.chunks is None else int(array.chunks[0])


def _part(array: Any, start: int, stop: int) -> np.ndarray:
    """Values from `start` to `stop`, or an error that says where."""
    try:
        part = np.asarray(array[start:stop])
    except UNREADABLE as error:
        msg = (
            f"{_where(array)} cannot be read from position {start} to {stop} ({error}). The file is damaged or cut "
            "off, or it was changed meanwhile: restore it."
        )
        raise ValueError(msg) from error
    if len(part) != min(stop, array.shape[0]) - start:
        msg = f"{_where(array)} gave {len(part)} of {stop - start} values from position {start}. The file is cut off."
        raise ValueError(msg)
    return part


def _check_complete(array: Any) -> None:
    """Raise a ValueError where zarr lacks a chunk, for which it would give zeros."""
    if _is_zarr(array) and array.nchunks_initialized < array.nchunks:
        missing = array.nchunks - array.nchunks_initialized
        found = f"{_where(array)} lacks {missing} of {array.nchunks} chunks"
        msg = f"{found}. The store is damaged, or was not written to its end."
        raise ValueError(msg)
