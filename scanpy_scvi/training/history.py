"""What happened in a fit, epoch by epoch, and what it amounts to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

Verdict = Literal["converged", "still improving", "KL collapsed", "diverged", "interrupted", "imported"]

ACTIVE_VARIANCE = 0.01
"""A latent dimension whose posterior means vary less than this carries nothing (Burda 2016, arXiv 1509.00519).

Where no prior sets the scale of z, it is a share of the variance of the dimension that varies most.
"""

RUIN = 0.1
"""Relative fall of the training bound from its best that makes a fit diverged."""


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
    penalty: float = 0.0
    """What penalties added to the loss of the training cells."""
    train_kl: float = np.nan
    """The KL within `train_elbo`, which is not stored; NaN where it is not known, and `kl` is taken for it."""

    @property
    def elbo(self) -> float:
        """The bound that tells: of held-out cells, where there are any."""
        return self.train_elbo if np.isnan(self.validation_elbo) else self.validation_elbo

    def goal(self, kl_weight: float = 1.0) -> float:
        """What a fit is stopped and judged by: that bound with the weight on its KL, less what penalties add."""
        return self.elbo + (1 - kl_weight) * self.kl - self.penalty


def history_arrays(history: list[EpochRecord]) -> dict[str, np.ndarray]:
    """One array for each quantity, with a value for each epoch; penalties only where there are any."""
    stored = [name for name in EpochRecord._fields if name != "train_kl"]
    arrays = {name: np.array([getattr(record, name) for record in history]) for name in stored}
    if not arrays["penalty"].any():
        del arrays["penalty"]
    return arrays


@dataclass(frozen=True)
class Convergence:
    """The verdict on a fit, in words and numbers."""

    verdict: Verdict
    message: str
    best_epoch: int
    """Epoch whose weights were kept: the best one, or the last where the best is not asked for."""
    best_elbo: float
    """ELBO of the kept weights on held-out cells (training cells where none are held out), nats per cell."""
    recent_gain: float
    """Relative gain of the bound over the last fifth of the epochs."""
    kl: float
    n_active: int
    """Latent dimensions that carry information."""
    n_restarts: int


def active_dimensions(variance: np.ndarray, *, scale_is_set: bool) -> np.ndarray:
    """Which latent dimensions carry information, by the variance over cells of their posterior means, bool."""
    unit = 1.0 if scale_is_set else variance.max(initial=0.0)
    return variance > ACTIVE_VARIANCE * unit


def goals(history: list[EpochRecord], kl_weight: float = 1.0) -> np.ndarray:
    """What a fit is judged by, for each epoch, all under the weight that the KL has in the end."""
    return np.array([record.goal(kl_weight) for record in history])


def recent_gain(history: list[EpochRecord], share: float = 0.2, ceiling: float = 0.0, kl_weight: float = 1.0) -> float:
    """Gain of the best bound over the last `share` of the epochs, relative to its distance from the `ceiling`.

    That is zero for probabilities. Bounds of densities may themselves be anywhere, zero included.
    """
    elbo = goals(history, kl_weight)
    if len(elbo) < 2:
        return float("inf")
    n_recent = _n_recent(history, share)
    before, after = elbo[:-n_recent].max(), elbo.max()
    return float((after - before) / abs(before - ceiling))


def ruined(history: list[EpochRecord], ceiling: float = 0.0) -> bool:
    """Whether training has made the fit to its own cells clearly worse than it once was, for most of the last epochs.

    Held-out bounds cannot tell, as they also fall where a model overfits. The bounds of all epochs are compared under
    the last KL weight, because a bound may fall while a weight below one lets the KL grow.
    """
    kl = np.array([record.kl if np.isnan(record.train_kl) else record.train_kl for record in history])
    bound = np.array([record.train_elbo - record.penalty for record in history])
    bound += (1 - history[-1].kl_weight) * kl
    best = np.maximum.accumulate(bound)  # until then: what was on its way to a later best has not fallen
    fall = best - bound - RUIN * abs(best - ceiling)
    return bool(np.median(fall[-_n_recent(history) :]) > 0)


def _n_recent(history: list[EpochRecord], share: float = 0.2) -> int:
    return max(1, round(share * len(history)))


def judge(
    history: list[EpochRecord],
    *,
    plateau: bool,
    too_short: bool,
    latent_variance: np.ndarray,
    tolerance: float,
    n_restarts: int,
    interrupted: bool,
    keep_best: bool = True,
    scale_is_set: bool = True,
    ceiling: float = 0.0,
    kl_weight: float = 1.0,
) -> Convergence:
    """Say how a fit ended.

    Parameters
    ----------
    history
        One record per epoch.
    plateau
        Whether the stopping rule ended the fit.
    too_short
        Whether the fit had fewer steps than the stopping rule waits for.
    latent_variance
        Variance over cells of the posterior means, per latent dimension.
    tolerance
        Relative gain below which the bound counts as flat.
    n_restarts
        Restarts after a non-finite loss.
    interrupted
        Whether the user stopped the fit; its best weights are kept then.
    keep_best
        Whether the weights of the best epoch were kept, rather than the last ones.
    scale_is_set
        Whether a prior sets the scale of z.
    ceiling
        Bound of an exact reconstruction, from which relative changes of the bound are measured.
    kl_weight
        Weight of the KL that the fit was made for.
    """
    kept = int(np.argmax(goals(history, kl_weight))) if keep_best or interrupted else len(history) - 1
    n_active = int(active_dimensions(latent_variance, scale_is_set=scale_is_set).sum())
    gain = recent_gain(history, ceiling=ceiling, kl_weight=kl_weight)
    kl = history[kept].kl
    verdict: Verdict
    if interrupted:
        verdict, why = "interrupted", f"stopped by hand in epoch {len(history) + 1}; the best weights so far were kept"
    elif ruined(history, ceiling):
        verdict, why = "diverged", f"the training bound fell {RUIN:.0%} below its best, or more; lower `learning_rate`"
    elif too_short:
        verdict, why = "still improving", "too few steps to tell an end; raise `max_epochs`"
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
        best_epoch=history[kept].epoch,
        best_elbo=float(history[kept].elbo),
        recent_gain=gain,
        kl=kl,
        n_active=n_active,
        n_restarts=n_restarts,
    )
