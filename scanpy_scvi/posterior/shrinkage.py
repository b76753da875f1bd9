"""Many effects, each estimated with an error, and what is known of each when all are looked at together.

    b_g | beta_g ~ beta_g + s_g t_nu,     beta_g ~ w_0 delta_0 + sum_k w_k Uniform(0, a_k) + sum_k w'_k Uniform(-a_k, 0)

The weights of the prior, which has its one mode at 0, are found by maximising the likelihood of all b (EM), with a
penalty that favours w_0. The posterior of each effect is then made of pieces of a t distribution, so that
probabilities, mean and quantiles have closed forms. Without the prior, 1 - P(beta >= delta | b) could not be added up
to an expected share of false discoveries: where most effects are null, the largest estimates are mostly luck.

Stephens 2017, Biostatistics 18:275 (adaptive shrinkage, here with half-uniform components and a t likelihood).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit
from scipy.stats import norm
from scipy.stats import t as student

NULL_WEIGHT = 10.0
"""Dirichlet parameter of w_0, as against 1 of the others: rather too many nulls than too few."""
STEP = np.sqrt(2)
ITERATIONS = 500
TOLERANCE = 1e-6
LEAST_DF = 1.1
"""Least degrees of freedom for which the posterior mean is computed; a t with one has no mean."""


class ShiftPosterior(NamedTuple):
    """What is known of each effect, (n_genes,)."""

    mean: np.ndarray
    low: np.ndarray
    """Lower end of the central credible interval."""
    high: np.ndarray
    p_up: np.ndarray
    """P(beta >= delta)."""
    p_down: np.ndarray
    """P(beta < -delta)."""
    null_share: float
    """w_0."""


class _Pieces(NamedTuple):
    """Intervals, in rising order, on which the prior's density is constant, and the point 0 as one of no width."""

    low: np.ndarray
    high: np.ndarray
    is_null: np.ndarray


def posterior_shifts(b: np.ndarray, s: np.ndarray, df: float, *, delta: float, interval: float) -> ShiftPosterior:
    """Posterior of effects from their estimates.

    Parameters
    ----------
    b
        Estimates, (n_genes,).
    s
        Their standard errors.
    df
        Degrees of freedom of the standard errors; may be infinite.
    delta
        Smallest effect that counts.
    interval
        Mass of the central credible interval.
    """
    ends = _component_ends(b, s)
    pieces = _pieces(ends, delta)
    mass, moment = _piece_integrals(b, s, df, pieces)
    density, null_share = _fit_prior(mass, pieces, ends)
    unscaled = mass * density
    total = unscaled.sum(1, keepdims=True)
    posterior = unscaled / total
    up, down = (pieces.low >= delta) & ~pieces.is_null, (pieces.high <= -delta) & ~pieces.is_null
    quantiles = [_quantile(q, posterior, mass, b, s, df, pieces) for q in ((1 - interval) / 2, (1 + interval) / 2)]
    return ShiftPosterior(
        mean=(moment * density).sum(1) / total[:, 0],
        low=quantiles[0],
        high=quantiles[1],
        p_up=posterior[:, up].sum(1),
        p_down=posterior[:, down].sum(1),
        null_share=null_share,
    )


def _component_ends(b: np.ndarray, s: np.ndarray) -> np.ndarray:
    """a_k: from well below the errors to well above the estimates, in steps of the root of 2."""
    least = float(s.min()) / 5
    most = max(2 * float(np.sqrt(np.maximum(b**2 - s**2, 0).max())), 4 * least)
    return least * STEP ** np.arange(np.ceil(np.log(most / least) / np.log(STEP)) + 1)


def _pieces(ends: np.ndarray, delta: float) -> _Pieces:
    edges = np.unique(np.concatenate([-ends, [0.0, delta, -delta], ends]))
    low, high = edges[:-1], edges[1:]
    at = int(np.searchsorted(low, 0.0))
    low, high = np.insert(low, at, 0.0), np.insert(high, at, 0.0)
    return _Pieces(low, high, np.arange(len(low)) == at)


def _piece_integrals(b: np.ndarray, s: np.ndarray, df: float, pieces: _Pieces) -> tuple[np.ndarray, np.ndarray]:
    """Integrals over each piece of the likelihood of an effect, and of effect times likelihood; at 0, its density."""
    left, right = ((edge - b[:, None]) / s[:, None] for edge in (pieces.low, pieces.high))
    tails = _cdf(-np.abs(left), df), _cdf(-np.abs(right), df)
    mass = np.where((left < 0) & (right > 0), 1 - tails[0] - tails[1], np.abs(tails[0] - tails[1]))
    finite_df = max(df, LEAST_DF)
    moment = b[:, None] * mass + s[:, None] * (_first_moment(left, finite_df) - _first_moment(right, finite_df))
    at = int(pieces.is_null.argmax())
    mass[:, at], moment[:, at] = _pdf(b / s, df) / s, 0.0
    return mass, moment


def _fit_prior(mass: np.ndarray, pieces: _Pieces, ends: np.ndarray) -> tuple[np.ndarray, float]:
    """Density of the prior on each piece (at 0: the weight), and w_0."""
    sides = [(-a, 0.0) for a in ends] + [(0.0, a) for a in ends]
    density = np.array([((pieces.low >= low) & (pieces.high <= high)) / (high - low) for low, high in sides])
    density = np.vstack([pieces.is_null, np.where(pieces.is_null, 0.0, density)])
    likelihood = mass @ density.T
    likelihood /= likelihood.max(1, keepdims=True)
    extra = np.r_[NULL_WEIGHT - 1, np.zeros(len(sides))]
    w = np.full(len(density), 1 / len(density))
    for _ in range(ITERATIONS):
        before = w
        w = w * (likelihood.T @ (1 / (likelihood @ w))) + extra
        w /= w.sum()
        if np.abs(w - before).max() < TOLERANCE:
            break
    return w @ density, float(w[0])


def _quantile(
    q: float, posterior: np.ndarray, mass: np.ndarray, b: np.ndarray, s: np.ndarray, df: float, pieces: _Pieces
) -> np.ndarray:
    """Invert the posterior's distribution function: find the piece, then the point in it."""
    below = np.cumsum(posterior, axis=1)
    at = np.minimum((below < q).sum(1), len(pieces.low) - 1)
    rows = np.arange(len(b))
    share = (q - (below[rows, at] - posterior[rows, at])) / np.maximum(posterior[rows, at], 1e-300)
    wanted = np.clip(share, 0, 1) * mass[rows, at]  # of the likelihood, from the lower end of the piece
    left = (pieces.low[at] - b) / s
    tail = _cdf(-np.abs(left), df)
    inverted = np.where(
        left < 0,
        _inverse_cdf(np.clip(tail + wanted, 1e-300, 1 - 1e-16), df),
        -_inverse_cdf(np.clip(tail - wanted, 1e-300, 1 - 1e-16), df),
    )
    inside = np.clip(b + s * inverted, pieces.low[at], pieces.high[at])
    return np.where(pieces.is_null[at], 0.0, inside)


def _cdf(z: np.ndarray, df: float) -> np.ndarray:
    return ndtr(z) if np.isinf(df) else stdtr(df, z)


def _inverse_cdf(p: np.ndarray, df: float) -> np.ndarray:
    return ndtri(p) if np.isinf(df) else stdtrit(df, p)


def _pdf(z: np.ndarray, df: float) -> np.ndarray:
    return norm.pdf(z) if np.isinf(df) else student.pdf(z, df)


def _first_moment(z: np.ndarray, df: float) -> np.ndarray:
    """Integral of x times the density from z to infinity."""
    return norm.pdf(z) if np.isinf(df) else (df + z**2) / (df - 1) * student.pdf(z, df)
