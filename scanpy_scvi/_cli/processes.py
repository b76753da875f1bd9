"""The command line under torchrun: one process of several."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..training.ranks import Ranks

SET_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Told(Exception):  # noqa: N818  # it says that there is nothing to say
    """A failure of which another process tells."""


class Terminated(Exception):  # noqa: N818  # as KeyboardInterrupt
    """Somebody asked this process to end."""


class Launched(NamedTuple):
    """What torchrun says of this process."""

    rank: int
    size: int
    local_rank: int
    """Number on its machine."""
    local_size: int
    """Processes on its machine."""


def launched() -> Launched:
    """What torchrun has set; one process of one without it."""
    if not all(name in os.environ for name in SET_BY_TORCHRUN):
        return Launched(0, 1, 0, 1)
    return Launched(*(int(os.environ[name]) for name in SET_BY_TORCHRUN[:4]))


@contextmanager
def joined(here: Launched, device: str) -> Iterator[Ranks]:
    """Join the other processes of the run, which compute on `device`, for the duration of a block.

    Whatever ends the block in one process ends it in all: those that wait for it are told when it goes. The first that
    fails says why, the others are silent.
    """
    from ..training.ranks import PATIENCE, Ranks, connect

    if here.size == 1:
        yield Ranks()
        return
    import torch
    from torch import distributed

    torch.set_num_threads(threads(here))
    store, rank, size = next(distributed.rendezvous("env://", timeout=PATIENCE))
    before: Any = signal.signal(signal.SIGTERM, _terminate)
    try:
        check_device(here, device)
        backend = "cpu:gloo,cuda:nccl" if device_of(here, device).startswith("cuda") else "gloo"
        connect(backend, store=store, rank=rank, world_size=size)
        yield Ranks(size, rank)
    except (Exception, KeyboardInterrupt) as error:
        before = signal.SIG_IGN  # it ends, but is to say why first
        signal.signal(signal.SIGTERM, before)
        if _is_first(store):
            raise
        raise Told from error
    finally:
        signal.signal(signal.SIGTERM, before)
        if distributed.is_initialized():
            distributed.destroy_process_group()


def threads(here: Launched) -> int:
    """Threads for one process: what OMP_NUM_THREADS asks for, or its share of the cores where that is 1 or not set.

    torchrun sets it to 1 where the user has set nothing.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "1")
    if asked.isdigit() and int(asked) > 1:
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // here.local_size)


def device_of(here: Launched, device: str) -> str:
    """The device of one process: the GPU with its number on its machine, where GPUs are asked for or found."""
    import torch

    if here.size > 1 and (device == "cuda" or (device == "auto" and torch.cuda.is_available())):
        return f"cuda:{here.local_rank}"
    return device


def check_device(here: Launched, device: str) -> None:
    """Raise a ValueError where processes of one machine would share a GPU, which nccl does not do, or none is there."""
    import torch

    if device.startswith("cuda:") and here.local_size > 1:
        msg = (
            f"`device` is {device!r}, which each of the {here.local_size} processes of this machine would take. Pass "
            "'cuda', and each takes the GPU with its own number."
        )
        raise ValueError(msg)
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device == "cuda" or (device == "auto" and n_gpus)) and here.local_size > n_gpus:
        msg = (
            f"{here.local_size} processes were started on this machine, but it has {n_gpus} GPUs, and each takes one. "
            f"Start {f'at most {n_gpus} there' if n_gpus else 'them where there are some'}, or pass `--device cpu`."
        )
        raise ValueError(msg)


def _is_first(store: Any) -> bool:
    """Whether no other process has failed before; also where nobody can be asked."""
    try:
        return store.add("failed", 1) == 1
    except RuntimeError:
        return True


def _terminate(*_: object) -> None:
    msg = "another process of this run has ended, or somebody ended them all: torchrun says which. Nothing was written."
    raise Terminated(msg)
