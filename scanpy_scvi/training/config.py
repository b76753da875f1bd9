"""How a model is fitted."""

from __future__ import annotations

from dataclasses import dataclass

STEPS = 8_000
"""Optimiser steps that the default budget allows at most; few fits need them all."""


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of one fit."""

    max_epochs: int
    """Most passes over the training cells."""
    batch_size: int = 128
    learning_rate: float = 1e-2
    """Adam's step size."""
    row_rate: float = 10.0
    """Adam's step size for cells' own latent states, where a model has such, in units of `learning_rate`."""
    warmup_steps: int = 20
    """Steps over which the rate rises from zero."""
    adam_eps: float = 1e-2
    """Added to the root of Adam's second moment; a large one damps the steps of weights whose gradients are small."""
    mixed_precision: bool = True
    """Whether the products over all genes are rounded to bfloat16 in training, on processors that gain by it."""
    averaging: float = 0.1
    """Share of the steps so far over which weights are averaged; the average is what a fit returns. 0 returns the
    last."""
    start_from_data: bool = True
    """Whether to start at the average cell of each batch rather than from noise."""
    settle_dispersion: bool = True
    """Whether a fit of few cells ends with dispersions that are most probable, where that makes the held-out bound
    better."""
    weight_decay: float = 0.0
    """Factor of the L2 penalty on all weights."""
    kl_weight: float = 1.0
    """Weight of KL(q(z) || p(z)) in the loss after the warm-up."""
    kl_warmup: float = 0.0
    """Share of `max_epochs` over which the KL weight rises linearly from zero."""
    validation_size: float = 0.1
    """Share of cells held out from training."""
    early_stopping: bool = True
    patience_steps: int = 100
    """Optimiser steps (and at least two epochs) without a better held-out bound that end the fit."""
    min_improvement: float = 2e-4
    """Relative improvement of the held-out bound that counts as one."""
    keep_best: bool = True
    """Whether to end with the weights of the best held-out bound."""
    max_restarts: int = 3
    """Restarts at a lower rate after a non-finite loss."""
    random_state: int = 0


def default_max_epochs(n_cells: int, batch_size: int = 128, preset: str | None = None) -> int:
    """Most epochs of a fit by default.

    What counts is optimiser steps, so small data get more epochs: `STEPS` steps, at least 10 and at most 400 epochs.
    The preset `"scvi-tools"` has its rule, 400 epochs up to 20,000 cells and fewer in proportion above.

    Examples
    --------
    >>> default_max_epochs(1_000), default_max_epochs(100_000), default_max_epochs(100_000, preset="scvi-tools")
    (400, 10, 80)
    """
    if preset == "scvi-tools":
        return max(1, min(round(20_000 / n_cells * 400), 400))
    return max(10, min(400, round(STEPS * batch_size / n_cells)))
