"""Moving average of a model's weights."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..modules.vae import VAE


class WeightAverage:
    """Moving average of weights and running statistics over about the last `share` of all steps so far.

    The n-th step enters with weight 1 / (1 + share n), so the average grows with the fit and forgets its start
    (polynomial-decay averaging, Shamir and Zhang 2013). With `share` 0 it is the weights themselves.

    At a constant rate the weights wander around a minimum; their average lies nearer to it than where a falling rate
    would stop them (Polyak and Juditsky 1992), so no fall needs to be planned and the fit can end when the average
    stops improving.
    """

    def __init__(self, model: VAE, share: float) -> None:
        self.model = model
        self.share = share
        self.n_steps = 0
        self._live = [t for t in model.state_dict().values() if t.is_floating_point()]
        self._average = [t.clone() for t in self._live]

    def copy(self) -> WeightAverage:
        """Return an average of its own for the same model, in the same state."""
        other = WeightAverage(self.model, self.share)
        other.n_steps = self.n_steps
        other._average = [t.clone() for t in self._average]
        return other

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after an optimiser step."""
        torch._foreach_lerp_(self._average, self._live, 1 / (1 + self.share * self.n_steps))
        self.n_steps += 1

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Run a block with the averaged weights in the model."""
        with torch.no_grad():
            live = [t.clone() for t in self._live]
            torch._foreach_copy_(self._live, self._average)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._live, live)
