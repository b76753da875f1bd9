"""How much memory is free."""

from __future__ import annotations

import os
from pathlib import Path

LAYER_SHARE = 0.25
"""Largest share of the free memory that `normalized="auto"` gives to the normalized layer."""


def available_memory() -> int | None:
    """Bytes that a process can take without swapping; None where the system does not say."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" in names:  # macOS tells the size of the machine, not what is free
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return None
