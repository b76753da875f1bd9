"""Moving average of a model's weights."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class WeightAverage:
    """Moving average of tensors over about the last `share` of all steps so far.

    The n-th step enters with weight 1 / (1 + share n), so the average grows with the fit and forgets its start
    (polynomial-decay averaging, Shamir and Zhang 2013). With `share` 0 it is the tensors themselves.

    At a constant rate the weights wander around a minimum; their average lies nearer to it than where a falling rate
    would stop them (Polyak and Juditsky 1992), so no fall needs to be planned and the fit can end when the average
    stops improving.
    """

    def __init__(self, live: Sequence[torch.Tensor], share: float) -> None:
        self.live = [t.detach() for t in live]
        self.share = share
        self.n_steps = 0
        self.values = [t.clone() for t in self.live]
        """The averages, in the order of `live`."""

    def next_weight(self) -> float:
        """Weight with which the next step enters."""
        return 1 / (1 + self.share * self.n_steps)

    @torch.no_grad()
    def update(self, *, done: int = 0) -> None:
        """Take in the tensors after a step, but for the first `done`, which somebody else has averaged already."""
        if self.live[done:]:
            torch._foreach_lerp_(self.values[done:], self.live[done:], self.next_weight())
        self.n_steps += 1

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Run a block with the averages in place of the live tensors."""
        with torch.no_grad():
            live = [t.clone() for t in self.live]
            torch._foreach_copy_(self.live, self.values)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self.live, live)
