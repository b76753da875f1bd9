"""Files that change all at once: written beside, brought to the disk, and only then given their name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def part_of(path: Path) -> Path:
    """Where the new content of a file is written until it is complete."""
    return path.with_name(f"{path.name}.part")


def replace(part: Path, path: Path) -> None:
    """Give `part` the name of `path`, whose old content goes; a crash leaves the one or the other, and never a half."""
    sync(part)
    part.replace(path)
    sync(path.absolute().parent)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # folders cannot be opened there
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
