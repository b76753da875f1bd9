"""How many threads torch computes with."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from ..numerics.team import team_of
from .exclusive import TORCH_STATE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..modules.spec import ModelSpec

WORK_PER_THREAD = 1e8
"""Products in the widest layer of a minibatch below which a second thread costs more than it brings."""


def useful_threads(batch_size: int, spec: ModelSpec) -> int:
    """Threads that pay for minibatches of a model, at most those that torch has.

    Products of usual size take a fraction of a millisecond. Threads that wait for each other between them burn
    processor time, and on a busy machine, or beside another library's idle threads, they multiply the time of a fit.
    """
    options = spec.decoder.options
    width = options.get("n_hidden", options.get("n_latent", 1))
    wanted = 1 + int(batch_size * spec.dims.n_genes * width / WORK_PER_THREAD)
    return min(wanted, torch.get_num_threads())


@contextmanager
def team_of_torch_threads() -> Iterator[None]:
    """Run a block with one team of as many threads as torch has, and torch itself with one in each of them.

    Torch's own threads spin between two products and so hold the processors that the kernels' threads need.
    """
    with TORCH_STATE:
        n = torch.get_num_threads()
        with limited_threads(1), team_of(n, lambda: torch.set_num_threads(1)):
            yield


@contextmanager
def limited_threads(n: int) -> Iterator[None]:
    """Run a block with `n` torch threads, then restore the number; another thread that wants that waits."""
    with TORCH_STATE:
        before = torch.get_num_threads()
        torch.set_num_threads(n)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@contextmanager
def limited_to_useful(batch_size: int, spec: ModelSpec) -> Iterator[None]:
    """Run a block with as many torch threads as :func:`useful_threads` says."""
    with TORCH_STATE, limited_threads(useful_threads(batch_size, spec)):
        yield
