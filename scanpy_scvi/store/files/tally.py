"""What parts of a file claim to hold, beside what is stored of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..checks import short

if TYPE_CHECKING:
    from collections.abc import Sequence

FREE = 64 * 2**20
"""Bytes that may be claimed without being stored: constants compress well."""
RATIO = 1100
"""Bytes that may be claimed for each byte stored; deflate reaches 1032."""
MOST_ITEMS = 200_000
"""Groups and arrays that are looked at."""
DEEPEST = 32
"""Groups within groups."""


class Tally:
    """Sums of what was claimed and stored so far."""

    def __init__(self) -> None:
        self.claimed = 0
        self.stored = 0
        self.items = 0

    def visit(self, where: str, depth: int) -> None:
        """Count a group or an array; raise a ValueError for too many, or too deep a nesting."""
        self.items += 1
        if depth > DEEPEST or self.items > MOST_ITEMS:
            what = f"more than {DEEPEST} groups in each other" if depth > DEEPEST else f"more than {MOST_ITEMS} arrays"
            msg = f"{short(where)} has {what}, which no AnnData has. The file is damaged."
            raise ValueError(msg)

    def add(self, where: str, claimed: int, stored: int) -> None:
        """Add an array; raise a ValueError where it, or all together, claims far more bytes than are stored."""
        self.claimed += claimed
        self.stored += stored
        for one, there in ((claimed, stored), (self.claimed, self.stored)):
            if one > FREE + RATIO * there:
                msg = (
                    f"{short(where)} claims {_size(one)}, but {_size(there)} are stored for it. The file is damaged, "
                    "and was not read."
                )
                raise ValueError(msg)


def product(shape: Sequence[int]) -> int:
    """Entries of an array."""
    return math.prod(int(n) for n in shape)


def _size(n: int) -> str:
    return f"{n:,} bytes" if n < 10**18 else "more than an exabyte"


def check_path(name: object, where: str) -> None:
    """Raise a ValueError for a name that leads out of its group."""
    text = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
    if any(part in {"", ".", ".."} for part in text.split("/")):
        msg = f"{short(where)} names {short(text)}, which lies outside of it. The file is damaged, and was not read."
        raise ValueError(msg)
