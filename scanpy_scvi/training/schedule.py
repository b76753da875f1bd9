"""Learning rate over the steps of a fit whose length is found on the way."""

from __future__ import annotations

import math

from .config import TrainingConfig

WARMUP_STEPS = 20


class Schedule:
    """Rate: a short rise, constant while the bound improves, then a cosine fall to zero.

    The steady phase lasts until the held-out bound is flat or the budget leaves just enough epochs for the fall; the fall lasts
    `cooldown_share` of all epochs run. A fit can thus be stopped by its bound and still end at a rate of zero, which is where
    most of the last gain lies.
    """

    def __init__(self, config: TrainingConfig, steps_per_epoch: int) -> None:
        self.config = config
        self.steps_per_epoch = steps_per_epoch
        self.scale = 1.0
        """Factor on the rate; restarts lower it."""
        self.plateau = False
        self.n_steady: int | None = None
        """Epochs before the fall; None during the steady phase."""
        self._best = -math.inf
        self._best_epoch = 0

    @property
    def last_steady_epoch(self) -> int:
        """Latest end of the steady phase that leaves room for the fall within `max_epochs`."""
        if self.config.schedule == "constant":
            return self.config.max_epochs
        return max(1, round(self.config.max_epochs * (1 - self.config.cooldown_share)))

    @property
    def n_epochs(self) -> int:
        """Epochs of the whole fit, as far as known."""
        if self.n_steady is None or self.config.schedule == "constant":
            return self.config.max_epochs if self.n_steady is None else self.n_steady
        share = self.config.cooldown_share
        return min(self.config.max_epochs, self.n_steady + max(1, round(self.n_steady * share / (1 - share))))

    def rate(self, epoch: int, step: int) -> float:
        """Learning rate of a step (from 0) of an epoch (from 0)."""
        rate = self.config.learning_rate * self.scale
        if self.config.schedule == "constant":
            return rate
        done = epoch * self.steps_per_epoch + step
        rate *= min(1.0, (done + 1) / WARMUP_STEPS)
        if self.n_steady is None:
            return rate
        start, end = self.n_steady * self.steps_per_epoch, self.n_epochs * self.steps_per_epoch
        return rate * 0.5 * (1 + math.cos(math.pi * (done - start) / (end - start)))

    def end_epoch(self, epoch: int, elbo: float) -> None:
        """Take note of the bound after an epoch (from 0) and end the steady phase where it is time."""
        if self.n_steady is not None:
            return
        if elbo > self._best + self.config.min_improvement * abs(elbo) or math.isinf(self._best):
            self._best, self._best_epoch = elbo, epoch
        warm = epoch + 1 >= self.config.kl_warmup * self.config.max_epochs
        waited = (epoch - self._best_epoch) * self.steps_per_epoch
        if self.config.early_stopping and warm and waited >= self.config.patience_steps and epoch - self._best_epoch > 1:
            self.plateau = True
        if self.plateau or epoch + 1 >= self.last_steady_epoch:
            self.n_steady = epoch + 1

    def kl_weight(self, epoch: int, step: int) -> float:
        """Weight of the KL: a linear rise over the first `kl_warmup` of the epochs."""
        rise = self.config.kl_warmup * self.config.max_epochs * self.steps_per_epoch
        done = epoch * self.steps_per_epoch + step
        return self.config.kl_weight * (min(1.0, done / rise) if rise else 1.0)
