"""A minibatch whose cells are shared among processes, each of which has some of its rows."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Part(NamedTuple):
    """The rows `start` to `stop` of a minibatch of `n` cells; other processes have the others."""

    n: int
    start: int
    stop: int
    sum_: Callable[[torch.Tensor], None]
    """Sums a tensor over all processes, in place; every one of them must call it."""


_part: ContextVar[Part | None] = ContextVar("part", default=None)


@contextmanager
def of_shared_minibatch(part: Part) -> Iterator[None]:
    """Run a block in which the cells that a model sees are a part of a minibatch.

    Noise is then that of the whole minibatch, of which each process takes its rows, and batch normalisation takes the
    moments of all cells: together, processes compute what one would.
    """
    token = _part.set(part)
    try:
        yield
    finally:
        _part.reset(token)


def shared_part() -> Part | None:
    """The part that the caller's cells are; None where they are the whole minibatch."""
    return _part.get()


def normal_like(x: torch.Tensor) -> torch.Tensor:
    """Standard normal noise for cells, of the shape of `x`, (n, ...)."""
    part = _part.get()
    if part is None:
        return torch.randn_like(x)
    return torch.randn((part.n, *x.shape[1:]), dtype=x.dtype, device=x.device)[part.start : part.stop]


def dropout(x: torch.Tensor, rate: float, part: Part) -> torch.Tensor:
    """Dropout of part of a minibatch, (n, width), by the masks that the whole would have."""
    if not rate:
        return x
    whole = functional.dropout(x.new_ones(part.n, x.shape[1]), rate)
    return x * whole[part.start : part.stop]
