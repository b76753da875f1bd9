"""A file that HDF5 can close even when the disk is full."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


class Sink(io.RawIOBase):
    """A new file as h5py takes it; what comes after a failure to write is lost in silence, and `error` tells.

    HDF5 cannot give up a file: after a failed write it tries again at every later call, at the close of every object
    and at the end of the process, and fails each time. So it is told that all went well.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Where it is."""
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from here on, beyond the end with zeros."""
        view, done = memoryview(buffer).cast("B"), 0
        while done < len(view) and (n := self._file.readinto(view[done:])):
            done += n
        view[done:] = bytes(len(view) - done)
        return len(view)

    def write(self, buffer: Any) -> int:
        """Write all of a buffer here."""
        view, done = memoryview(buffer).cast("B"), 0
        try:
            while done < len(view) and self.error is None:
                done += self._file.write(view[done:]) or 0
        except OSError as error:
            self.error = error
        return len(view)

    def truncate(self, size: int) -> int:  # type: ignore[override]  # as h5py calls it
        """Set the length."""
        try:
            if self.error is None:
                self._file.truncate(size)
        except OSError as error:
            self.error = error
        return size

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
        super().close()
