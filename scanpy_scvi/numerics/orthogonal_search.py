"""The rotation that makes a matrix sparsest: a smooth L1 criterion over the orthogonal group, from several starts.

With entries l in units of their standard errors, the criterion is

    C(l) = sum (sqrt(l^2 + c^2) - c),

which is |l| - c for large entries and l^2 / 2c for those that noise explains. It is made small by descent along the
orthogonal group (projected gradients and a polar factor, Jennrich 2001). It has other minima, in most of which two
dimensions are mixed: where the descent ends, every pair of dimensions is turned by every angle of a grid, and the
descent goes on from the best. With that, most random starts end at the same rotation.

References: Jennrich 2001, Psychometrika 66:289 (gradient projection on the orthogonal group).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SCALE = 3.0
"""c: entries below three standard errors are noise."""
ANGLES = np.linspace(0, np.pi / 2, 17)[1:-1]
"""Angles by which two dimensions are turned to leave a minimum."""
MAX_STEPS, MAX_TURNS = 2000, 200
"""Steps of a descent, and of everything that is repeated around it."""
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


def smooth_l1(entries: np.ndarray) -> float:
    """Return the criterion C of entries in units of their standard errors."""
    return float((np.sqrt(entries**2 + SCALE**2) - SCALE).sum())


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
    found = [_search(shifts, weights, start, free_origin=free_origin) for start in turns]
    values = np.array([value for _, _, value in found])
    turn, origin, _ = found[int(values.argmin())]
    turn, origin, value = _alternate(shifts, weights, turn, origin, free_origin=free_origin, tolerance=FINE)
    return Sparsest(turn, origin, value, int((values <= values.min() * (1 + AGREE)).sum()))


def polar(x: np.ndarray) -> np.ndarray:
    """Return the orthogonal matrix nearest to a square one."""
    u, _, vt = np.linalg.svd(x)
    nearest: np.ndarray = u @ vt
    return nearest


def _search(
    shifts: np.ndarray, weights: np.ndarray, turn: np.ndarray, *, free_origin: bool
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return rotation, origin and criterion where neither a descent nor a turn of two dimensions leads on."""
    origin, value = np.zeros(len(turn)), np.inf
    for _ in range(MAX_TURNS):
        turn, origin, value = _alternate(shifts, weights, turn, origin, free_origin=free_origin, tolerance=ROUGH)
        turned = _turn_a_pair(weights[:, None] * ((shifts - origin) @ turn))
        if turned is None:
            break
        turn = turn @ turned
    return turn, origin, value


def _alternate(
    shifts: np.ndarray,
    weights: np.ndarray,
    turn: np.ndarray,
    origin: np.ndarray,
    *,
    free_origin: bool,
    tolerance: float,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Turn, move the origin, and so on; neither makes the criterion larger."""
    last = np.inf
    for _ in range(MAX_TURNS):
        turn, value = _descend(weights[:, None] * (shifts - origin), turn, tolerance)
        if not free_origin or last - value <= tolerance * value:
            break
        last = value
        origin = _smooth_median(shifts @ turn, weights, origin @ turn) @ turn.T
    return turn, origin, value


def _descend(x: np.ndarray, turn: np.ndarray, tolerance: float) -> tuple[np.ndarray, float]:
    """Return the nearest minimum of the criterion of `x @ turn`, and its value."""
    value, gradient = _criterion(x, turn)
    step = SCALE / max(float(np.linalg.norm(x, 2)) ** 2, SMALLEST_STEP)
    for _ in range(MAX_STEPS):
        inner = turn.T @ gradient
        direction = gradient - turn @ ((inner + inner.T) / 2)
        promised = SUFFICIENT * float((direction**2).sum())
        step *= 2
        while True:
            trial = polar(turn - step * direction)
            trial_value, trial_gradient = _criterion(x, trial)
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


def _turn_a_pair(entries: np.ndarray) -> np.ndarray | None:
    """Return the rotation of two columns, out of all pairs and a grid of angles, that helps most; None where none does.

    Angles beyond a right angle exchange the columns or their signs.
    """
    p = entries.shape[1]
    costs = np.sqrt(entries**2 + SCALE**2).sum(0)
    best, least = None, ROUGH * costs.sum()
    for i in range(p - 1):
        one, others = entries[:, [i]], entries[:, i + 1 :]
        for angle in ANGLES:
            cos, sin = np.cos(angle), np.sin(angle)
            turned = np.sqrt((cos * one + sin * others) ** 2 + SCALE**2).sum(0)
            turned += np.sqrt((cos * others - sin * one) ** 2 + SCALE**2).sum(0)
            gains = costs[i] + costs[i + 1 :] - turned
            if gains.max() > least:
                best, least = (i, i + 1 + int(gains.argmax()), cos, sin), gains.max()
    if best is None:
        return None
    i, j, cos, sin = best
    turn = np.eye(p)
    turn[np.ix_([i, j], [i, j])] = [[cos, -sin], [sin, cos]]
    return turn


def _criterion(x: np.ndarray, turn: np.ndarray) -> tuple[float, np.ndarray]:
    """C of `x @ turn`, and its derivative by `turn`."""
    entries = x @ turn
    root = np.sqrt(entries**2 + SCALE**2)
    return float((root - SCALE).sum()), x.T @ (entries / root)


def _smooth_median(shifts: np.ndarray, weights: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return the point of each column from which the criterion is smallest, by reweighted means."""
    point = start
    for _ in range(50):
        inverse = weights[:, None] ** 2 / np.sqrt((weights[:, None] * (shifts - point)) ** 2 + SCALE**2)
        point = (inverse * shifts).sum(0) / inverse.sum(0)
    return point
