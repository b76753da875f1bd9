"""The rotation that makes a matrix sparsest: a smooth L1 criterion over the orthogonal group, from several starts.

With entries l in units of their standard errors, the criterion is

    C(l) = sum (sqrt(l^2 + c^2) - c),

which is |l| - c for large entries and l^2 / 2c for those that noise explains. It is made small by descent along the
orthogonal group (projected gradients and a polar factor, Jennrich 2001). As it has other minima, there are several
starts; every other one is led from a smoother criterion, c as large as the entries, to that with `SCALE`. On simulated
shifts (tests/benchmark/rotation.py) this finds what varimax and quartimax, whose fourth powers follow the largest
shifts alone, do not.

References: Jennrich 2001, Psychometrika 66:289 (gradient projection on the orthogonal group).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SCALE = 3.0
"""c: entries below three standard errors are noise."""
MAX_STEPS, MAX_TURNS = 500, 50
"""Steps of a descent, and of the alternation between rotation and origin."""
ROUGH, FINE = 1e-7, 1e-12
"""Relative gain at which a start ends, and the best of them."""
AGREE = 1e-4
"""Starts agree whose criteria differ by less than this share."""
SUFFICIENT, SMALLEST_STEP = 0.25, 1e-14
"""Share of the gain that a gradient promises which a step must bring; a step that is too short to try."""


class Sparsest(NamedTuple):
    """A rotation of `shifts - origin` and how well it was found."""

    turn: np.ndarray
    """R, (p, p), orthogonal."""
    origin: np.ndarray
    """o, (p,): what the shifts are counted from; zero where it was given."""
    criterion: float
    """C of w (shifts - o) R."""
    n_agree: int
    """Starts whose criterion is that of the best."""


def smooth_l1(entries: np.ndarray, scale: float = SCALE) -> float:
    """Return the criterion C of entries in units of their standard errors."""
    return float((np.sqrt(entries**2 + scale**2) - scale).sum())


def sparsest_rotation(
    shifts: np.ndarray, weights: np.ndarray, *, free_origin: bool, n_starts: int, rng: np.random.Generator
) -> Sparsest:
    """Rotate rows so that they are sparsest.

    Parameters
    ----------
    shifts
        (n_rows, p), of full column rank.
    weights
        One over the standard error of a row, (n_rows,).
    free_origin
        Whether the shifts are counted from the origin that makes them sparsest, a smooth median of each column after
        the rotation, rather than from zero.
    n_starts
        Number of starts: the axes as they are, the principal axes, and random rotations of these.
    rng
        Where the starts come from.
    """
    _, _, axes = np.linalg.svd(weights[:, None] * shifts, full_matrices=False)
    axes = axes.T * np.where((((weights[:, None] * shifts) @ axes.T) ** 3).sum(0) < 0, -1.0, 1.0)
    p = shifts.shape[1]
    turns = [np.eye(p), axes, *(axes @ polar(rng.normal(size=(p, p))) for _ in range(n_starts - 2))][:n_starts]
    largest = float(np.sqrt(np.mean((weights[:, None] * shifts) ** 2)))
    gradual = [*(largest / 3.0 ** np.arange(8)), SCALE]
    found = []
    for i, turn in enumerate(turns):
        origin = np.zeros(p)
        for scale in [s for s in gradual if s >= SCALE][-1 if i % 2 == 0 else 0 :]:
            turn, origin = _alternate(shifts, weights, turn, origin, scale, free_origin, ROUGH)  # noqa: PLW2901
        found.append((smooth_l1(weights[:, None] * ((shifts - origin) @ turn)), turn, origin))
    values = np.array([value for value, _, _ in found])
    _, turn, origin = found[int(values.argmin())]
    turn, origin = _alternate(shifts, weights, turn, origin, SCALE, free_origin, FINE)
    value = smooth_l1(weights[:, None] * ((shifts - origin) @ turn))
    return Sparsest(turn, origin, value, int((values <= values.min() * (1 + AGREE)).sum()))


def polar(x: np.ndarray) -> np.ndarray:
    """Return the orthogonal matrix nearest to a square one."""
    u, _, vt = np.linalg.svd(x)
    nearest: np.ndarray = u @ vt
    return nearest


def _alternate(
    shifts: np.ndarray,
    weights: np.ndarray,
    turn: np.ndarray,
    origin: np.ndarray,
    scale: float,
    free_origin: bool,  # noqa: FBT001
    tolerance: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Turn, move the origin, and so on; neither makes the criterion larger."""
    last = np.inf
    for _ in range(MAX_TURNS if free_origin else 1):
        turn, value = _descend(weights[:, None] * (shifts - origin), turn, scale, tolerance)
        if not free_origin or last - value <= tolerance * value:
            break
        last = value
        origin = _smooth_median(shifts @ turn, weights, origin @ turn, scale) @ turn.T
    return turn, origin


def _descend(x: np.ndarray, turn: np.ndarray, scale: float, tolerance: float) -> tuple[np.ndarray, float]:
    """Return the nearest minimum of the criterion of `x @ turn`, and its value."""
    value, gradient = _criterion(x, turn, scale)
    step = scale / max(float(np.linalg.norm(x, 2)) ** 2, SMALLEST_STEP)
    for _ in range(MAX_STEPS):
        inner = turn.T @ gradient
        direction = gradient - turn @ ((inner + inner.T) / 2)
        promised = SUFFICIENT * float((direction**2).sum())
        step *= 2
        while True:
            trial = polar(turn - step * direction)
            trial_value, trial_gradient = _criterion(x, trial, scale)
            if trial_value <= value - step * promised or step * np.sqrt(promised) < SMALLEST_STEP:
                break
            step /= 2
        if not trial_value < value:
            break
        gain = value - trial_value
        turn, value, gradient = trial, trial_value, trial_gradient
        if gain <= tolerance * value:
            break
    return turn, value


def _criterion(x: np.ndarray, turn: np.ndarray, scale: float) -> tuple[float, np.ndarray]:
    """C of `x @ turn`, and its derivative by `turn`."""
    entries = x @ turn
    root = np.sqrt(entries**2 + scale**2)
    return float((root - scale).sum()), x.T @ (entries / root)


def _smooth_median(shifts: np.ndarray, weights: np.ndarray, start: np.ndarray, scale: float) -> np.ndarray:
    """Return the point of each column from which the criterion is smallest, by reweighted means."""
    point = start
    for _ in range(MAX_TURNS):
        inverse = weights[:, None] ** 2 / np.sqrt((weights[:, None] * (shifts - point)) ** 2 + scale**2)
        point = (inverse * shifts).sum(0) / inverse.sum(0)
    return point
