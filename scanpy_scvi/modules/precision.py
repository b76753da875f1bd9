"""Where products may be rounded to bfloat16."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING

import torch
from llvmlite.binding import get_host_cpu_features

if TYPE_CHECKING:
    from collections.abc import Iterator

FAST_BFLOAT16 = ("avx512bf16", "amx-bf16")
"""Instructions that multiply bfloat16 matrices at twice the rate of float32 or more."""

_reduced: ContextVar[bool] = ContextVar("reduced", default=False)


@cache
def bfloat16_pays() -> bool:
    """Whether this processor multiplies bfloat16 matrices faster than float32 ones."""
    features = get_host_cpu_features()
    return torch.backends.mkldnn.is_available() and any(features.get(name, False) for name in FAST_BFLOAT16)


@contextmanager
def reduced_precision(*, allowed: bool) -> Iterator[None]:
    """Let the products over all genes round their factors to bfloat16 within a block, where that pays.

    Sums, weights, biases, likelihood and optimiser stay in float32. Nothing global is set: other torch code, and other
    threads, do not notice.
    """
    token = _reduced.set(allowed and bfloat16_pays())
    try:
        yield
    finally:
        _reduced.reset(token)


def is_reduced() -> bool:
    """Whether the caller runs in such a block."""
    return _reduced.get()
