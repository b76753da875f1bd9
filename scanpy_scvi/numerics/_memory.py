"""Arrays for kernels to fill."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike


def aligned_empty(shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> np.ndarray:
    """Array that begins at a multiple of 64 bytes, since vectors that straddle one are stored slowly."""
    item = np.dtype(dtype).itemsize
    size = math.prod(shape)
    memory = np.empty(size + 64 // item, dtype)
    start = (-memory.ctypes.data % 64) // item
    return memory[start : start + size].reshape(shape)
