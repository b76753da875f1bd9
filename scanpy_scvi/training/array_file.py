"""Arrays in a file that is whole or is refused."""

from __future__ import annotations

import os
import zipfile
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from .._replace import own_part_of, replace

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DIGITS = 64
"""Hexadecimal digits of the fingerprint at the end of a file."""
BLOCK = 2**22


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an `.npz` file atomically, without pickle, with the fingerprint of its bytes as the archive's comment.

    Raises
    ------
    OSError
        Where it cannot be written; what was at `path` before stays.
    """
    part = own_part_of(path)
    try:
        with zipfile.ZipFile(part, "w") as archive:
            archive.comment = b"0" * DIGITS  # so that the fingerprint's place is the end of the file
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
        found = _fingerprint(part)
        with part.open("r+b") as file:
            file.seek(-DIGITS, os.SEEK_END)
            file.write(found)
        replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a file.

    Raises
    ------
    ValueError
        Where the file is not as it was written.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - DIGITS))
        written = file.read()
    if size < DIGITS or written != _fingerprint(path):
        msg = f"{path} is cut short or damaged."
        raise ValueError(msg)
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def read_text(path: Path, name: str) -> str | None:
    """Read one array of a file, a text, without a look at the others; None where there is none."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return str(arrays[name])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _fingerprint(path: Path) -> bytes:
    """Fingerprint of all bytes but those that hold it."""
    digest = blake2b(digest_size=DIGITS // 2)
    left = path.stat().st_size - DIGITS
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(BLOCK, left))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest().encode()
