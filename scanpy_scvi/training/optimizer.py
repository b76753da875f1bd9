"""The optimiser of a fit: Adam, and the moving average of what it moves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from ..numerics.adam import adam_step
from ..numerics.team import share
from .average import WeightAverage
from .memory import blocks, unpack
from .rows import RowAdam

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from torch import nn

    from .config import TrainingConfig

BETA1, BETA2 = 0.9, 0.999
CLIPPED_FROM = 10.0
"""Times the usual norm of the gradient from which a gradient is shortened; ordinary fits do not come near."""
NORM_STEPS = 100
"""Steps over which the usual norm is averaged; a fifth of them must have passed before anything is shortened."""
FINE_EPS = 1e-8
"""Added to the root of the second moment of parameters whose gradients are small (see `ModelPart.fine_parameters`)."""
_SECONDS = 5e-10
"""A step of the kernel for one weight."""


class AveragedAdam:
    """Adam (Kingma and Ba 2015) with the weights' moving average kept in the same pass over memory.

    On the CPU a step is one kernel call for each of a few flat vectors; elsewhere it is torch's own Adam. The `table`
    of cells' own latent states, where the model has one, is moved by rows.
    """

    def __init__(self, model: nn.Module, config: TrainingConfig, table: nn.Parameter | None = None) -> None:
        self.config = config
        self.parameters = list(model.parameters())
        self.rows = None if table is None else RowAdam(table, config.averaging)
        """Optimiser of the cells' own latent states, where they have such."""
        self.blocks = blocks(model, without=table)
        weights = [block.weights for block in self.blocks]
        statistics = [t for t in model.buffers() if t.is_floating_point()]
        self.average = WeightAverage([*weights, *statistics], config.averaging)
        self.first = [torch.zeros_like(w) for w in weights]
        """Moving average of the gradient."""
        self.second = [torch.zeros_like(w) for w in weights]
        """Moving average of its square."""
        self.n_steps = 0
        self.usual_norm = 0.0
        """Moving average of the gradient's norm."""
        self.counters = [t for t in model.buffers() if not t.is_floating_point()]
        self._has_kernel = all(w.device.type == "cpu" and w.dtype == torch.float32 for w in weights)
        self._arrays: list[tuple[np.ndarray, ...]] = []
        """Weights, moments and average of each block, as the kernel takes them."""
        if self._has_kernel:
            memory = zip(weights, self.first, self.second, self.average.values, strict=False)
            self._arrays = [tuple(t.numpy() for t in tensors) for tensors in memory]

    @torch.no_grad()
    def step(self, learning_rate: float, add_up: Callable[[list[torch.Tensor]], None] | None = None) -> None:
        """Move the weights against their gradients, the average along, and forget the gradients.

        `add_up` makes gradients of a part of a minibatch those of the whole, in place.
        """
        gradients = [block.gradient() for block in self.blocks]
        if add_up is not None:
            add_up(gradients)
        self.n_steps += 1
        self._clip(gradients)
        if self._has_kernel:
            self._step_by_kernel(gradients, learning_rate)
            self.average.update(done=len(gradients) if self.config.averaging else 0)
        else:
            self._step_by_torch(gradients, learning_rate)
            self.average.update()
        if self.rows is not None:
            self.rows.step(learning_rate * self.config.row_rate)
        self.forget()

    def forget(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def _clip(self, gradients: list[torch.Tensor]) -> None:
        """Shorten a gradient far beyond the usual, so that one strange minibatch does not undo a fit."""
        norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))
        if not math.isfinite(norm):
            return  # the loss of the next minibatch tells
        limit = CLIPPED_FROM * self.usual_norm
        if self.n_steps > NORM_STEPS // 5 and norm > limit > 0:
            torch._foreach_mul_(gradients, limit / norm)
            norm = limit
        self.usual_norm += (norm - self.usual_norm) / min(self.n_steps, NORM_STEPS)

    def _step_by_kernel(self, gradients: list[torch.Tensor], learning_rate: float) -> None:
        average_weight = self.average.next_weight() if self.config.averaging else 0.0  # then it is a copy

        def work(start: int, stop: int) -> None:
            some = slice(start, stop)
            for block, gradient, (weights, *moving) in zip(
                self.blocks[some], gradients[some], self._arrays[some], strict=True
            ):
                adam_step(
                    weights,
                    gradient.numpy(),
                    *moving,
                    learning_rate=learning_rate,
                    beta1=BETA1,
                    beta2=BETA2,
                    eps=FINE_EPS if block.fine else self.config.adam_eps,
                    step=self.n_steps,
                    weight_decay=0.0 if block.fine else self.config.weight_decay,
                    average_weight=average_weight,
                )

        share(len(gradients), _SECONDS * sum(len(g) for g in gradients), work)

    def _step_by_torch(self, gradients: list[torch.Tensor], learning_rate: float) -> None:
        """The same update in torch's operations, each over all vectors at once."""
        weights = [block.weights for block in self.blocks]
        if self.config.weight_decay:
            decays = [0.0 if block.fine else self.config.weight_decay for block in self.blocks]
            gradients = [g + decay * w for g, w, decay in zip(gradients, weights, decays, strict=True)]
        torch._foreach_lerp_(self.first, gradients, 1 - BETA1)
        torch._foreach_mul_(self.second, BETA2)
        torch._foreach_addcmul_(self.second, gradients, gradients, 1 - BETA2)
        scale = torch._foreach_sqrt(self.second)
        torch._foreach_div_(scale, (1 - BETA2**self.n_steps) ** 0.5)
        torch._foreach_add_(scale, [FINE_EPS if block.fine else self.config.adam_eps for block in self.blocks])
        torch._foreach_addcdiv_(weights, self.first, scale, -learning_rate / (1 - BETA1**self.n_steps))

    def state(self) -> list[torch.Tensor]:
        """Every tensor that a step changes: weights and statistics, their averages, both moments."""
        rows = [] if self.rows is None else self.rows.state()
        return [*self.result(), *self.average.values, *self.first, *self.second, *rows]

    def numbers(self) -> list[float]:
        """Every number that a step changes."""
        return [float(self.n_steps), self.usual_norm, float(self.average.n_steps)]

    def set_numbers(self, numbers: Sequence[float]) -> None:
        """Go on from what :meth:`numbers` gave."""
        n_steps, self.usual_norm, n_averaged = numbers
        self.n_steps, self.average.n_steps = int(n_steps), int(n_averaged)

    def result(self) -> list[torch.Tensor]:
        """The tensors of the model: weights, statistics, counters, and the cells' own latent states."""
        return [*self.average.live, *self.counters, *([] if self.rows is None else [self.rows.table.detach()])]

    def averaged_result(self) -> list[torch.Tensor]:
        """The same with averages in place of weights and statistics."""
        return [*self.average.values, *self.counters, *([] if self.rows is None else [self.rows.average])]

    def release(self) -> None:
        """Give every parameter its own memory again."""
        unpack(self.blocks)


class Snapshot:
    """A state of the optimiser and its model that one can go back to."""

    def __init__(self, optimizer: AveragedAdam) -> None:
        self.optimizer = optimizer
        self.values = [torch.empty_like(t) for t in optimizer.state()]
        self.take()

    def take(self) -> None:
        """Remember the state as it is now, in memory that is taken once."""
        torch._foreach_copy_(self.values, self.optimizer.state())
        self.numbers = self.optimizer.numbers()

    def restore(self) -> None:
        """Go back, to where there are no gradients."""
        self.optimizer.forget()
        torch._foreach_copy_(self.optimizer.state(), self.values)
        self.optimizer.set_numbers(self.numbers)
