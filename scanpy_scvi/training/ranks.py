"""Several processes that fit one model together."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import distributed

from ..modules.shared import Part, of_shared_minibatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

PATIENCE = timedelta(minutes=10)
"""Time after which a process that does not answer is taken for lost; reading a large file takes some."""
SMALL = 2**14
"""Values up to which a sum is one round of messages, in which everybody tells everybody, rather than two."""
WIDE = 2**17
"""Values from which a tensor travels by itself; what is smaller is copied into one message."""
SOON = 0.02
"""Seconds in which an answer is looked for again and again; a process that sleeps is slow to wake."""
TEXT = 2048
"""Bytes of the longest text that is passed on."""


SIGNS_OF_LOSS = (
    "connection closed by peer",
    "connection reset by peer",
    "connection refused",
    "broken pipe",
    "read error",
    "write error",
    "timed out",
    "timeout",
    "no route to host",
    "network is unreachable",
    "remote process exited",
    "communicator was aborted",
)
"""What gloo and nccl say where another process has ended or is silent: they raise a RuntimeError for everything."""


class LostProcessError(RuntimeError):
    """Another process of the run has ended, or does not answer."""


class NotFirst(Exception):  # noqa: N818  # nothing went wrong
    """The fit is done, and what follows is for the first process alone."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, of torch's default process group; by default one alone, for which all of this is nothing.

    Each has every minibatch's cells of its own, computes the sums over them, and adds up what others found; since all
    then hold the same sums, all take the same steps and the same decisions, and have the same weights at any time.
    """

    size: int = 1
    rank: int = 0
    """Number of this process, from 0."""

    @property
    def together(self) -> bool:
        """Whether there are several."""
        return self.size > 1

    def bounds(self, n: int) -> tuple[int, int]:
        """First and last + 1 of `n` things that are this process's own; shares differ by one at most."""
        return n * self.rank // self.size, n * (self.rank + 1) // self.size

    def mine(self, rows: np.ndarray) -> np.ndarray:
        """The share of this process in an array."""
        return rows[slice(*self.bounds(len(rows)))] if self.together else rows

    def sharing(self, n_cells: int) -> AbstractContextManager[None]:
        """A block in which a model sees this process's share of a minibatch of `n_cells`."""
        return of_shared_minibatch(Part(n_cells, *self.bounds(n_cells), self.sum_)) if self.together else nullcontext()

    def weight(self, loss: torch.Tensor, n_cells: int) -> torch.Tensor | None:
        """By what the mean loss of a share of a minibatch enters that of all `n_cells`: the share; None for one."""
        start, stop = self.bounds(n_cells)
        return loss.new_tensor((stop - start) / n_cells) if self.together else None

    def sum_(self, *tensors: torch.Tensor) -> None:
        """Add up tensors over all processes, in place; the same bits everywhere."""
        if not self.together:
            return
        with _asked():
            if len(tensors) == 1 and tensors[0].numel() <= SMALL:
                self._sum_small(tensors[0])
            else:
                _sum_all(tensors)

    def _sum_small(self, tensor: torch.Tensor) -> None:
        """Let everybody tell everybody, and add up in the order of ranks.

        The messages are each sent as they are: gloo hands what its collective operations do to another thread.
        """
        every = tensor.new_empty((self.size, *tensor.shape))
        every[self.rank] = tensor
        others = [rank for rank in range(self.size) if rank != self.rank]
        messages = [distributed.P2POp(distributed.irecv, every[rank], rank) for rank in others]
        messages += [distributed.P2POp(distributed.isend, tensor, rank) for rank in others]
        for message in distributed.batch_isend_irecv(messages):
            message.wait()
        torch.sum(every, 0, out=tensor)

    def broadcast_(self, tensors: Iterable[torch.Tensor]) -> None:
        """Overwrite tensors with those of the first process."""
        if not self.together:
            return
        with _asked(), torch.no_grad():
            for tensor in tensors:
                whole = tensor.contiguous()
                distributed.broadcast(whole, 0)
                if whole.data_ptr() != tensor.data_ptr():
                    tensor.copy_(whole)

    def first_text(self, text: str | None) -> str:
        """What the first process that has something to say says; at least one must."""
        if not self.together:
            return text or ""
        own = b"" if text is None else text.encode()[:TEXT]
        letters = torch.zeros(self.size, TEXT, dtype=torch.int32)
        letters[self.rank, : len(own)] = torch.tensor(list(own), dtype=torch.int32)
        self.sum_(letters)
        said = [bytes(row[row > 0].tolist()).decode(errors="replace") for row in letters]
        return next((one for one in said if one), "")

    def agree(self, arrays: Iterable[np.ndarray]) -> bool:
        """Whether all processes hold the same arrays."""
        if not self.together:
            return True
        digest = hashlib.sha256()
        for array in arrays:
            digest.update(f"{array.dtype} {array.shape};".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        own = torch.zeros(self.size, len(digest.digest()), dtype=torch.int32)
        own[self.rank] = torch.tensor(list(digest.digest()), dtype=torch.int32)
        self.sum_(own)
        return bool((own == own[0]).all())

    def check_equal(self, tensors: Iterable[torch.Tensor]) -> None:
        """Raise a RuntimeError where a process holds other numbers than the first."""
        if not self.agree(tensor.detach().cpu().numpy() for tensor in tensors):
            msg = (
                f"The {self.size} processes ended with different weights, so none can be trusted and nothing was "
                "written. Run them on machines of one kind, with the same versions of all packages."
            )
            raise RuntimeError(msg)


def connect(backend: str, **options: Any) -> None:
    """Make torch's default process group, whose own threads do not interrupt the one that calls; see torch for options.

    A thread of gloo that wakes while the caller holds a lock of its connection asks for that lock again and again until
    the system's next tick. Where both have one core, that costs milliseconds, a hundred times a message. Linux wakes
    threads of the class for batches without stopping others, and a thread has the class of the one that starts it.
    """
    with _patient_threads():
        distributed.init_process_group(backend, timeout=PATIENCE, **options)


@contextmanager
def _patient_threads() -> Iterator[None]:
    """Give threads that a block starts Linux' class for batches; nothing where there is none or another was chosen."""
    usual = hasattr(os, "SCHED_BATCH") and os.sched_getscheduler(0) == os.SCHED_OTHER
    changed = usual and _schedule(os.SCHED_BATCH)
    try:
        yield
    finally:
        if changed:
            _schedule(os.SCHED_OTHER)


def _schedule(policy: int) -> bool:
    """Change the class of the calling thread, and say whether that is allowed: a sandbox may forbid it."""
    try:
        os.sched_setscheduler(0, policy, os.sched_param(0))
    except OSError:
        return False
    return True


def _sum_all(tensors: Sequence[torch.Tensor]) -> None:
    """Sum tensors over all processes: wide ones each by itself and at once, the others in one message."""
    few = [t for t in tensors if t.numel() < WIDE]
    packed = torch.cat([t.reshape(-1) for t in few]) if few else None
    wide = [t for t in tensors if t.numel() >= WIDE]
    sent = [*wide, *([] if packed is None else [packed])]
    for work, tensor in [(distributed.all_reduce(t, async_op=True), t) for t in sent]:
        _await(work, tensor)
    if packed is not None:
        for tensor, values in zip(few, packed.split([t.numel() for t in few]), strict=True):
            tensor.copy_(values.view_as(tensor))


def _await(work: distributed.Work, tensor: torch.Tensor) -> None:
    """Wait for a sum, at first without sleeping: the processor goes to whoever has work, and is awake when it comes."""
    until = time.perf_counter() + SOON
    while tensor.device.type == "cpu" and not work.is_completed() and time.perf_counter() < until:
        _let_others()
    work.wait()


_let_others = getattr(os, "sched_yield", lambda: time.sleep(0))


@contextmanager
def _asked() -> Iterator[None]:
    """Say plainly that others do not answer; other errors pass as they are."""
    try:
        yield
    except RuntimeError as error:
        if not any(sign in str(error).lower() for sign in SIGNS_OF_LOSS):
            raise
        msg = (
            "Another process of this run has ended, or has not answered for "
            f"{PATIENCE.total_seconds() / 60:.0f} minutes, so the fit cannot go on; nothing was written."
        )
        raise LostProcessError(msg) from error


_ranks: ContextVar[Ranks] = ContextVar("ranks", default=Ranks())  # noqa: B039  # immutable


@contextmanager
def fitting_together(ranks: Ranks) -> Iterator[None]:
    """Let the model functions that a block calls fit together with other processes, which must call the same."""
    token = _ranks.set(ranks)
    try:
        yield
    finally:
        _ranks.reset(token)


def current_ranks() -> Ranks:
    """The processes that the caller's fits belong to."""
    return _ranks.get()
