"""The new content of a file, written beside it and given its name when it is complete."""

from __future__ import annotations

import errno
import inspect
import json
import math
import os
import shutil
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem

from .._replace import own_part_of, remove, replace
from .elements import ARRAY, DICT, GZIP, Folders, copy_elements, is_compressed, new_array
from .opened import SLOTS, Opened, check_source, check_suffix, open_file
from .sink import Sink
from .whole import check_whole

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLES = ("obs", "var")
FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
"""What systems say of a disk that takes no more."""


class Stamp(NamedTuple):
    """What tells that a file, or a folder with all in it, was changed."""

    n_files: int
    n_bytes: int
    newest: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Look at a file or a folder."""
        files = [entry for entry in path.rglob("*") if entry.is_file()] if path.is_dir() else [path]
        found = [file.stat() for file in files]
        return cls(len(found), sum(s.st_size for s in found), max((s.st_mtime_ns for s in found), default=0))


@contextmanager
def draft_of(path: Path, out: Path, layer: str | None = None) -> Iterator[Draft]:
    """Open the file at `path`; after the block, what became of its AnnData is the file at `out`, which may be the same.

    The new file is written beside, as `out` with machine, process and `.part` behind, brought to the disk, and renamed.
    Where anything fails before, the block included, `out` stays as it was.

    Raises
    ------
    FileNotFoundError, ValueError
        For paths that cannot be read or written.
    OSError
        Where the disk is full.
    """
    check_source(path)
    check_suffix(out)
    final = Path(os.path.realpath(out))  # a link stays one
    if not final.parent.is_dir():
        msg = f"{out} cannot be written: the folder {final.parent} does not exist. Make it first."
        raise FileNotFoundError(msg)
    stamp = Stamp.of(path)
    _check_place(out)
    part = own_part_of(final)
    try:
        with open_file(path, layer) as opened:
            check_whole(opened, out)
            _check_space(out, 0 if _shrinks(opened, out) else stamp.n_bytes)
            draft = Draft(opened, out, part)
            try:
                with _told_of(out):
                    yield draft
                    draft.finish()
            finally:
                draft.close()
            draft.check()
        if Stamp.of(path) != stamp:
            msg = f"{path} was changed while it was in use, so nothing was written. Call again."
            raise ValueError(msg)
        if final.exists():
            shutil.copymode(final, part)
        replace(part, final)
    finally:
        remove(part)


def _check_place(out: Path) -> None:
    """Raise a ValueError where something else than a file of the format has the name of the new one."""
    is_zarr = any((out / name).exists() for name in (".zgroup", "zarr.json"))
    if out.is_dir() and not (out.suffix == ".zarr" and is_zarr):
        msg = f"{out} is a folder that is no Zarr group, and would be replaced. Pass another name."
        raise ValueError(msg)


@contextmanager
def _told_of(out: Path) -> Iterator[None]:
    """Say of a full disk which file was to be written."""
    try:
        yield
    except shutil.Error as error:  # of many files
        raise _unwritten(out, str(error.args[0][0][-1])) from error
    except OSError as error:
        if error.errno not in FULL or str(out) in str(error):
            raise
        raise _unwritten(out, error.strerror, error.errno) from error


def _unwritten(out: Path, reason: str | None, number: int | None = None) -> OSError:
    number = number or errno.ENOSPC
    remedy = " Make room, or choose another disk, and call again." if number in FULL else ""
    return OSError(number, f"{out} could not be written, and is as it was: {reason}.{remedy}")


def _shrinks(opened: Opened, out: Path) -> bool:
    """Whether the new file is compressed and the one that was read is not, so that its size is not known."""
    return opened.path.suffix == ".h5ad" and out.suffix == ".zarr" and not _counts_are_compressed(opened.group)


def _counts_are_compressed(group: Any) -> bool:
    """Whether `X` is compressed, or, without one, a layer."""
    found = [group["X"]] if "X" in group else [group["layers"][name] for name in group.get("layers", ())]
    return any(is_compressed(x if hasattr(x, "shape") else x["data"]) for x in found)


def _check_space(out: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(Path(os.path.realpath(out)).parent).free
    if free < n_bytes:
        msg = (
            f"{out} cannot be written: the new file takes more than {n_bytes / 1e9:.2g} GB, but {free / 1e9:.2g} GB "
            "are free there. Make room, or choose another disk."
        )
        raise OSError(errno.ENOSPC, msg)


class Draft:
    """What becomes of a file: its AnnData takes the results, and :meth:`layer` a matrix that is never in memory."""

    def __init__(self, opened: Opened, path: Path, part: Path) -> None:
        self.adata = opened.adata
        self._opened, self._path, self._part = opened, path, part
        self._before = {slot: dict(getattr(self.adata, slot)) for slot in SLOTS}
        self._tables_before = {name: getattr(self.adata, name).copy() for name in TABLES}
        self._written: set[str] = set()
        self._file: Any = None
        self._sink: Sink | None = None

    def layer(self, name: str) -> Any:
        """Make a layer of the new file, float32, to be written by rows."""
        if not self._options():
            _check_space(self._path, Stamp.of(self._opened.path).n_bytes + 4 * math.prod(self.adata.shape))
        array = new_array(self._group("layers"), name, self.adata.shape, np.float32, self._options())
        array.attrs.update(ARRAY)
        self._written.add(f"layers/{name}")
        return array

    def finish(self) -> None:
        """Write all else."""
        translated = self._opened.path.suffix != self._path.suffix
        columns, changed = self._changed_columns(), self._changed() | self._written
        is_zarr = self._path.suffix == ".zarr" and not translated
        folders = Folders(self._opened.path, self._part) if is_zarr else None
        copy_elements(self._opened.group, self._root(), {*changed, *columns}, folders)
        for table, name in sorted(where.split("/", 1) for where in columns):
            self._write_column(table, name)
        for slot, name in sorted(where.split("/", 1) for where in changed - self._written):
            if name in getattr(self.adata, slot):
                self._write(self._group(slot), name, getattr(self.adata, slot)[name])
        if self._path.suffix == ".zarr":
            _consolidate(self._root(), self._opened, translated=translated)

    def close(self) -> None:
        """Let go of the new file."""
        if isinstance(self._file, h5py.File):
            self._file.close()
        if self._sink is not None:
            self._sink.close()

    def check(self) -> None:
        """Raise an OSError where the new file could not be written."""
        if self._sink is not None and self._sink.error is not None:
            error = self._sink.error
            raise _unwritten(self._path, error.strerror, error.errno) from error

    def _write(self, group: Any, name: str, value: Any) -> None:
        self.check()
        write_elem(group, name, value, dataset_kwargs=self._options())

    def _write_column(self, table: str, name: str) -> None:
        """Write a column, or leave out one that is gone; the others stay as they lie in the file."""
        group, frame = self._root()[table], getattr(self.adata, table)
        if name in frame:
            column = frame[name]
            is_own = pd.api.types.is_extension_array_dtype(column.dtype)  # a type of pandas, as categories are
            self._write(group, name, column.array if is_own else column.to_numpy())
        group.attrs["column-order"] = list(frame.columns)

    def _changed_columns(self) -> set[str]:
        """Columns that are new, others than before, or gone, as ``table/name``."""
        found = set()
        for table, before in self._tables_before.items():
            after = getattr(self.adata, table)
            names = {*before.columns, *after.columns}
            same = {name for name in names if name in before and name in after and before[name].equals(after[name])}
            found |= {f"{table}/{name}" for name in names - same}
        return found

    def _changed(self) -> set[str]:
        """Elements that are new, others than before, or gone, as ``slot/name``."""
        found = set()
        for slot, before in self._before.items():
            after = dict(getattr(self.adata, slot))
            names = {*before, *after} - {None}  # anndata 0.13 lists X among the layers, as None
            found |= {f"{slot}/{name}" for name in names if before.get(name) is not after.get(name)}
        return found

    def _root(self) -> Any:
        """The new file."""
        if self._file is None:
            remove(self._part)
            if self._path.suffix == ".h5ad":
                self._sink = Sink(self._part)
                self._file = h5py.File(self._sink, "w")
            else:
                self._file = _new_zarr(self._part, self._opened)
        return self._file

    def _group(self, slot: str) -> Any:
        root = self._root()
        if slot in root:
            return root[slot]
        group = root.require_group(slot)
        group.attrs.update(DICT)
        return group

    def _options(self) -> dict[str, Any]:
        """How arrays are compressed: as the counts are."""
        return GZIP if self._path.suffix == ".h5ad" and _counts_are_compressed(self._opened.group) else {}


def _new_zarr(path: Path, opened: Opened) -> Any:
    """Make a Zarr group, of the version of the one that was read."""
    import zarr  # not every installation has it

    if "zarr_format" not in inspect.signature(zarr.open_group).parameters:
        return zarr.open_group(path, mode="w")  # zarr 2
    here = opened.group.metadata.zarr_format if opened.path.suffix == ".zarr" else None
    return zarr.open_group(path, mode="w", zarr_format=here or getattr(ad.settings, "zarr_write_format", 2))


def _consolidate(root: Any, opened: Opened, *, translated: bool) -> None:
    """Collect the metadata in one place, where that is how the file that was read has them, or how anndata does it."""
    import zarr

    path = opened.path
    has_all = translated or (path / ".zmetadata").exists()
    if (path / "zarr.json").exists() and not translated:
        has_all = "consolidated_metadata" in json.loads((path / "zarr.json").read_text(encoding="utf-8"))
    if has_all:
        with warnings.catch_warnings():
            # all readers of version 3 know it, though its specification does not
            warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
            zarr.consolidate_metadata(root.store)
