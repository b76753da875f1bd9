"""Results as JSON lines, so that a run that was cut off goes on where it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def read_lines(path: Path) -> list[dict[str, Any]]:
    """What was measured before; nothing where there is no such file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Add one result."""
    with path.open("a") as out:
        out.write(json.dumps(line) + "\n")
