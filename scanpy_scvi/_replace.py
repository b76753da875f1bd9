"""Files that change all at once: written beside, brought to the disk, and only then given their name."""

from __future__ import annotations

import os
import platform
import shutil
from glob import escape as glob_escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def part_of(path: Path) -> Path:
    """Where the new content of a file or folder is written until it is complete."""
    return path.with_name(f"{path.name}.part")


def own_part_of(path: Path) -> Path:
    """Return the same for this process alone, where several may write one file; what dead ones have left is deleted."""
    host = platform.node().partition(".")[0]
    for other in path.parent.glob(f"{glob_escape(path.name)}.{glob_escape(host)}-*.part"):
        process = other.name.removesuffix(".part").rpartition("-")[2]
        if process.isdigit() and not _is_alive(int(process)):
            remove(other)
    return path.with_name(f"{path.name}.{host}-{os.getpid()}.part")


def _is_alive(process: int) -> bool:
    """Whether a process of this machine exists; other systems than POSIX cannot be asked without harm."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def before_of(path: Path) -> Path:
    """Where a folder is put while another takes its name."""
    return path.with_name(f"{path.name}.before")


def replace(part: Path, path: Path) -> None:
    """Give `part` the name of `path`, whose old content goes; a crash leaves the one or the other, and never a half.

    A folder cannot take the name of another: the old one is first put aside (see :func:`before_of`), and a crash
    between the two steps leaves it there.
    """
    for inner in part.rglob("*") if part.is_dir() else ():
        sync(inner)
    sync(part)
    if path.is_dir():
        before = before_of(path)
        remove(before)  # of a crash after `path` had taken its place
        path.rename(before)
        part.rename(path)
        sync(path.absolute().parent)
        remove(before)
    else:
        part.replace(path)
        sync(path.absolute().parent)


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # folders cannot be opened there
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
