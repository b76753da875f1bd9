"""How a model is fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of one fit."""

    max_epochs: int
    """Most passes over the training cells."""
    batch_size: int = 128
    learning_rate: float = 1e-2
    """Adam's step size at its peak."""
    schedule: Literal["cooldown", "constant"] = "cooldown"
    """`cooldown`: constant rate while the held-out bound improves, then a fall to zero. `constant`: no fall."""
    cooldown_share: float = 0.4
    """Length of the fall, as a share of the whole fit."""
    start_from_data: bool = True
    """Whether to start at the average cell rather than from noise."""
    adam_eps: float = 1e-4
    weight_decay: float = 0.0
    """Factor of the L2 penalty on all weights."""
    kl_weight: float = 1.0
    """Weight of KL(q(z) || p(z)) in the loss after the warm-up."""
    kl_warmup: float = 0.0
    """Share of `max_epochs` over which the KL weight rises linearly from zero."""
    validation_size: float = 0.1
    """Share of cells held out from training."""
    early_stopping: bool = True
    patience_steps: int = 200
    """Optimiser steps without improvement of the held-out bound that end the constant phase."""
    min_improvement: float = 5e-4
    """Relative improvement of the held-out bound that counts as one."""
    keep_best: bool = True
    """Whether to end with the weights of the best held-out bound."""
    max_restarts: int = 3
    """Restarts at a lower rate after a non-finite loss."""
    random_state: int = 0
