"""Everything that a fit needs to go on as if it had never stopped."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from .history import EpochRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from .fit import _Fit

NO_GENERATOR = np.empty(0, np.uint8)
NO_NOTES = np.empty(0)


@dataclass
class Begun:
    """An epoch that has begun, and how far it is."""

    shuffled_by: Mapping[str, Any]
    """State of the generator that shuffled it, before it did."""
    step: int = 0
    """Steps that are done."""
    sums: torch.Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))
    """Terms of the bound, summed over the cells of these steps."""
    priced: float = 0.0
    """What penalties added to them."""

    def add(self, sums: torch.Tensor, priced: float) -> None:
        """Take note of a step."""
        self.step += 1
        self.sums += sums
        self.priced += priced


class Numbers(NamedTuple):
    """Numbers of a state, as JSON can hold them."""

    counters: Sequence[float]
    """Steps of the optimiser, usual norm, steps of the average."""
    counters_before: Sequence[float]
    """The same before the epoch."""
    best_goal: float
    n_restarts: int
    schedule: Sequence[float]
    shuffled_by: Mapping[str, Any]
    step: int
    sums: Sequence[float]
    priced: float


class FitState(NamedTuple):
    """State of a fit between two steps."""

    now: list[np.ndarray]
    """Weights, statistics, counters, averages, both moments, and cells' own latent states with theirs."""
    before: list[np.ndarray]
    """The same before the epoch; none where no step of the epoch is done."""
    best: list[np.ndarray]
    """Result of the best bound so far."""
    generator: np.ndarray
    """State of torch's generator."""
    device_generator: np.ndarray
    """State of that of the device; empty for the CPU."""
    history: np.ndarray
    """Epochs x quantities."""
    numbers: Numbers
    notes: np.ndarray = NO_NOTES
    """A number of the caller's after every epoch, where it asked for that."""

    @classmethod
    def of(cls, fit: _Fit, begun: Begun | None = None) -> FitState:
        """State of a fit, within the epoch that has `begun` or between two."""
        optimizer, before = fit.optimizer, fit.before_epoch
        begun = begun or Begun(fit.rng.bit_generator.state)
        numbers = Numbers(
            counters=optimizer.numbers(),
            counters_before=before.numbers if begun.step else [],
            best_goal=float(fit.best_goal),
            n_restarts=fit.n_restarts,
            schedule=fit.schedule.numbers(),
            shuffled_by=begun.shuffled_by,
            step=begun.step,
            sums=begun.sums.tolist(),
            priced=begun.priced,
        )
        is_cuda = fit.device.type == "cuda"
        return cls(
            now=_arrays(optimizer.state()),
            before=_arrays(before.values) if begun.step else [],
            best=_arrays(fit.best_result),
            generator=torch.get_rng_state().numpy(),
            device_generator=torch.cuda.get_rng_state(fit.device).numpy() if is_cuda else NO_GENERATOR,
            history=np.array(fit.history, np.float64).reshape(-1, len(EpochRecord._fields)),
            numbers=numbers,
            notes=np.array(fit.notes, np.float64),
        )

    def restore(self, fit: _Fit, *, is_first: bool = True) -> Begun | None:
        """Bring a new fit of the same model and data into the state; return how far its epoch is.

        Of several processes the first takes what was summed over cells before.
        """
        numbers = self.numbers
        _copy(fit.optimizer.state(), self.now)
        _copy(fit.best_result, self.best)
        fit.optimizer.set_numbers(numbers.counters)
        fit.before_epoch.take()
        if numbers.step:
            _copy(fit.before_epoch.values, self.before)
            fit.before_epoch.numbers = list(numbers.counters_before)
        fit.best_goal, fit.n_restarts = numbers.best_goal, numbers.n_restarts
        fit.schedule.set_numbers(numbers.schedule)
        fit.rng.bit_generator.state = numbers.shuffled_by
        fit.history[:] = [EpochRecord(int(row[0]), *row[1:]) for row in self.history.tolist()]
        fit.notes[:] = self.notes.tolist()
        torch.set_rng_state(torch.from_numpy(self.generator))
        if fit.device.type == "cuda" and len(self.device_generator):
            torch.cuda.set_rng_state(torch.from_numpy(self.device_generator), fit.device)
        if not numbers.step:
            return None
        sums = torch.tensor(numbers.sums, dtype=torch.float64)
        return Begun(numbers.shuffled_by, numbers.step, sums if is_first else torch.zeros_like(sums), numbers.priced)

    def arrays(self) -> dict[str, np.ndarray]:
        """The state as arrays under names, for a file."""
        lists = {f"{name}.{i}": a for name in ("now", "before", "best") for i, a in enumerate(getattr(self, name))}
        single = {name: getattr(self, name) for name in ("generator", "device_generator", "history", "notes")}
        return {**lists, **single, "numbers": np.array(json.dumps(self.numbers._asdict()))}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> FitState:
        """Return the state that :meth:`arrays` gave."""

        def several(name: str) -> list[np.ndarray]:
            return [arrays[f"{name}.{i}"] for i in range(sum(key.startswith(f"{name}.") for key in arrays))]

        return cls(
            now=several("now"),
            before=several("before"),
            best=several("best"),
            generator=arrays["generator"],
            device_generator=arrays["device_generator"],
            history=arrays["history"],
            numbers=Numbers(**json.loads(str(arrays["numbers"]))),
            notes=arrays["notes"],
        )


def start_id(model: nn.Module) -> str:
    """Fingerprint of what a model holds beside its weights before a fit, such as gene sets, 32 hexadecimal digits."""
    digest = blake2b(digest_size=16)
    for name, values in model.named_buffers():
        digest.update(f"{name} {values.dtype} {tuple(values.shape)};".encode())
        digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _arrays(tensors: Sequence[torch.Tensor]) -> list[np.ndarray]:
    return [t.detach().cpu().numpy() for t in tensors]


@torch.no_grad()
def _copy(tensors: Sequence[torch.Tensor], arrays: Sequence[np.ndarray]) -> None:
    for tensor, array in zip(tensors, arrays, strict=True):
        tensor.copy_(torch.from_numpy(array).reshape(tensor.shape))
