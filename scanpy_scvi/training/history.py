"""What happened in a fit, epoch by epoch, and what it amounts to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

Verdict = Literal["converged", "still improving", "KL collapsed", "diverged", "interrupted"]

ACTIVE_VARIANCE = 0.01
"""A latent dimension whose posterior means vary less than this carries nothing (Burda 2016, arXiv 1509.00519)."""


class EpochRecord(NamedTuple):
    """One epoch. Bounds and KLs are in nats, means over cells."""

    epoch: int
    train_elbo: float
    validation_elbo: float
    """NaN where no cells are held out."""
    kl: float
    """KL(q(z) || p(z)) on held-out cells, on training cells where none are held out."""
    kl_weight: float
    learning_rate: float


@dataclass(frozen=True)
class Convergence:
    """The verdict on a fit, in words and numbers."""

    verdict: Verdict
    message: str
    best_epoch: int
    best_elbo: float
    """ELBO of the kept weights on held-out cells (training cells where none are held out), nats per cell."""
    recent_gain: float
    """Relative gain of the bound over the last fifth of the epochs."""
    kl: float
    n_active: int
    """Latent dimensions that carry information."""
    n_restarts: int


def bounds(history: list[EpochRecord]) -> np.ndarray:
    """Return the ELBO that a fit is judged by: held-out where there is one."""
    validation = np.array([record.validation_elbo for record in history])
    return np.array([record.train_elbo for record in history]) if np.isnan(validation).any() else validation


def recent_gain(history: list[EpochRecord], share: float = 0.2) -> float:
    """Relative gain of the best bound over the last `share` of the epochs."""
    elbo = bounds(history)
    if len(elbo) < 2:
        return float("inf")
    n_recent = max(1, round(share * len(elbo)))
    before, after = elbo[:-n_recent].max(), elbo.max()
    return float((after - before) / abs(before))


def judge(
    history: list[EpochRecord],
    *,
    plateau: bool,
    latent_variance: np.ndarray,
    tolerance: float,
    n_restarts: int,
    interrupted: bool,
) -> Convergence:
    """Say how a fit ended.

    Parameters
    ----------
    history
        One record per epoch.
    plateau
        Whether the stopping rule ended the fit.
    latent_variance
        Variance over cells of the posterior means, per latent dimension.
    tolerance
        Relative gain below which the bound counts as flat.
    n_restarts
        Restarts after a non-finite loss.
    interrupted
        Whether the user stopped the fit.
    """
    elbo = bounds(history)
    best = int(np.argmax(elbo))
    n_active = int((latent_variance > ACTIVE_VARIANCE).sum())
    gain = recent_gain(history)
    kl = history[best].kl
    verdict: Verdict
    if interrupted:
        verdict, why = "interrupted", f"stopped by hand in epoch {len(history) + 1}; the best weights so far were kept"
    elif elbo[-1] < elbo[0]:
        verdict, why = "diverged", "the bound ended below that of the first epoch; lower `learning_rate`"
    elif n_active == 0:
        verdict, why = (
            "KL collapsed",
            f"no latent dimension carries information (KL {kl:.3g} nats); lower `kl_weight` or set `kl_warmup`",
        )
    elif plateau or gain < tolerance:
        verdict, why = "converged", f"the bound gained {gain:.2%} over the last fifth of the epochs"
    else:
        verdict, why = (
            "still improving",
            f"the bound still gained {gain:.2%} over the last fifth of the epochs; raise `max_epochs`",
        )
    return Convergence(
        verdict=verdict,
        message=f"{verdict} after {len(history)} epochs: {why}",
        best_epoch=history[best].epoch,
        best_elbo=float(elbo[best]),
        recent_gain=gain,
        kl=kl,
        n_active=n_active,
        n_restarts=n_restarts,
    )
