"""The command line with a fault at a set moment: `python _faulty.py FAULT WORD…`, where FAULT is JSON.

Counts of more than `buffer` bytes stay in the file, and states are left every `interval` seconds. `what` happens in
process `rank` before its training step number `step`, or when the results are written: half of an .h5ad (`write`), or
the third element of a .zarr (`copy`).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py

from scanpy_scvi._cli import entry

if TYPE_CHECKING:
    from collections.abc import Callable


def kill(_: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def edit(fault: dict[str, Any]) -> None:
    """Other counts at their places in the file."""
    with Path(fault["path"]).open("r+b") as file:
        for offset, n in fault["places"]:
            file.seek(offset)
            file.write(b"\x00\x00\x40\x40" * (n // 4))  # 3 as float32


def exchange(fault: dict[str, Any]) -> None:
    os.replace(fault["by"], fault["path"])


def fill(fault: dict[str, Any]) -> None:
    """Leave half a megabyte of a disk."""
    path = Path(fault["path"])
    size = shutil.disk_usage(path).free - 2**19
    with (path / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


FAULTS: dict[str, Callable[[dict[str, Any]], None]] = {
    function.__name__: function for function in (kill, edit, exchange, fill)
}


def places(path: Path) -> list[tuple[int, int]]:
    """Offset and bytes of the chunks of the stored counts in a file."""
    with h5py.File(path) as file:
        data = file["X/data"].id
        if data.get_offset() is not None:
            return [(data.get_offset(), file["X/data"].nbytes)]
        found = [data.get_chunk_info(i) for i in range(data.get_num_chunks())]
        return [(chunk.byte_offset, chunk.size) for chunk in found]


def at_step(fault: dict[str, Any]) -> None:
    """Let it happen before a step."""
    from scanpy_scvi.training import fit as _  # noqa: F401

    loop, steps = sys.modules["scanpy_scvi.training.fit"]._Fit, []
    step = loop._step

    def faulty(self: Any, *args: Any) -> Any:
        steps.append(None)
        if len(steps) == fault["step"] and self.ranks.rank == fault.get("rank", 0):
            FAULTS[fault["what"]](fault)
        return step(self, *args)

    loop._step = faulty


def at_write(fault: dict[str, Any]) -> None:
    """Let it happen when half of an .h5ad is written."""
    from scanpy_scvi.store.sink import Sink

    write, done = Sink.write, []

    def faulty(self: Any, buffer: Any) -> int:
        done.append(len(memoryview(buffer).cast("B")))
        if sum(done) > fault["write"]:
            FAULTS[fault["what"]](fault)
        return write(self, buffer)

    Sink.write = faulty


def at_copy(fault: dict[str, Any]) -> None:
    """Let it happen when some elements of a .zarr are copied."""
    copy, done = shutil.copytree, []

    def faulty(*args: Any, **options: Any) -> Any:
        done.append(None)
        if len(done) == fault["copy"]:
            FAULTS[fault["what"]](fault)
        return copy(*args, **options)

    shutil.copytree = faulty


MOMENTS = {"step": at_step, "write": at_write, "copy": at_copy}


def main(fault: dict[str, Any], words: list[str]) -> int:
    """Set the moment, and run the command."""
    from scanpy_scvi.store import backed_counts
    from scanpy_scvi.training import checkpoint, shuffle, sources

    for module in (backed_counts, shuffle, sources):
        module.ONE_BUFFER = fault["buffer"]
    checkpoint.INTERVAL = checkpoint.REST = fault["interval"]
    for moment, set_up in MOMENTS.items():
        if moment in fault:
            set_up(fault)
    return entry.main(words)


if __name__ == "__main__":
    raise SystemExit(main(json.loads(sys.argv[1]), sys.argv[2:]))
