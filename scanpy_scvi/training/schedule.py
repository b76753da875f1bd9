"""Learning rate and KL weight over the steps of a fit, and the rule that ends it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .config import TrainingConfig


class Schedule:
    """A short rise to a constant rate, until the held-out bound is flat.

    The rate never falls: the moving average of the weights (see :class:`.WeightAverage`) does what a fall would do,
    without a length that must be known in advance. So the fit can end when the bound of the average stops improving.
    """

    def __init__(self, config: TrainingConfig, steps_per_epoch: int) -> None:
        self.config = config
        self.steps_per_epoch = steps_per_epoch
        self.scale = 1.0
        """Factor on the rate; restarts lower it."""
        self.plateau = False
        """Whether the stopping rule has ended the fit."""
        self._best = -math.inf
        self._best_epoch = 0

    def numbers(self) -> list[float]:
        """All that changes in a fit."""
        return [self.scale, float(self.plateau), self._best, float(self._best_epoch)]

    def set_numbers(self, numbers: Sequence[float]) -> None:
        """Go on from what :meth:`numbers` gave."""
        self.scale, plateau, self._best, best_epoch = numbers
        self.plateau, self._best_epoch = bool(plateau), int(best_epoch)

    def rate(self, epoch: int, step: int) -> float:
        """Learning rate of a step (from 0) of an epoch (from 0)."""
        done = epoch * self.steps_per_epoch + step
        return self.config.learning_rate * self.scale * min(1.0, (done + 1) / max(1, self.config.warmup_steps))

    def kl_weight(self, epoch: int, step: int) -> float:
        """Weight of the KL: a linear rise over the first `kl_warmup` of the epochs."""
        rise = self.config.kl_warmup * self.config.max_epochs * self.steps_per_epoch
        done = epoch * self.steps_per_epoch + step
        return self.config.kl_weight * (min(1.0, done / rise) if rise else 1.0)

    def end_epoch(self, epoch: int, elbo: float, ceiling: float = 0.0) -> None:
        """Take note of the bound after an epoch (from 0) and stop where it has been flat for long enough.

        What counts as better is relative to the distance from the bound of an exact reconstruction, the `ceiling`.
        """
        if epoch < self.config.kl_warmup * self.config.max_epochs:
            return  # bounds under a growing KL weight are not comparable
        if math.isinf(self._best) or elbo > self._best + self.config.min_improvement * abs(elbo - ceiling):
            self._best, self._best_epoch = elbo, epoch
        self.plateau = self.config.early_stopping and self.patience(epoch - self._best_epoch) == 0

    def patience(self, waited: int) -> int:
        """Epochs still to wait for a better bound, after `waited` ones without."""
        return max(0, 2 - waited, math.ceil(self.config.patience_steps / self.steps_per_epoch) - waited)
