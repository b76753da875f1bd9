"""What the benchmark scripts share: the data of `tests/comparison`, a CPU clock that can pause, and JSON lines."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

sys.path.insert(0, str(Path(__file__).parents[1] / "comparison"))  # for quality_data, quality_peer


class Clock:
    """CPU and wall seconds since its making, pauses left out."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    @property
    def cpu(self) -> float:
        """CPU seconds of this process, all threads."""
        return time.process_time() - self._cpu

    @property
    def wall(self) -> float:
        """Wall seconds."""
        return time.perf_counter() - self._wall

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave a block out."""
        inner = Clock()
        try:
            yield
        finally:
            cpu, wall = inner.cpu, inner.wall
            self._cpu, self._wall = self._cpu + cpu, self._wall + wall


def gemm_ms(repeats: int = 101) -> float:
    """Median milliseconds of one float32 product, 128 x 128 by 128 x 2,000: how fast the machine is just now."""
    a, b = torch.ones(128, 128), torch.ones(128, 2000)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 1e3 * float(np.median(seconds[repeats // 5 :]))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def answer_of(command: list[str], out: Path | None) -> dict[str, Any]:
    """Last line of what a command prints, as JSON; printed, and appended to a file if one is named."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(line), flush=True)
    if out:
        append_line(out, line)
    return line


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Append one JSON line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as out:
        out.write(json.dumps(line) + "\n")
