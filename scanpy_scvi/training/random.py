"""Seeded torch randomness that leaves the global state as it was."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from .exclusive import TORCH_STATE

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Run a block with torch's generators seeded, then restore them.

    Dropout and weight initialisation read torch's global generator, so it is lent to the fit for its duration; another
    thread that wants it waits.
    """
    devices = [device] if device is not None and device.type == "cuda" else []
    with TORCH_STATE, torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def torch_seed(sequence: np.random.SeedSequence) -> int:
    """Seed for torch, which takes no sequence."""
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)
