"""Whether the latents that perturbations hit were found."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import average_precision_score

from .columns import read_matrix


class TargetScores(NamedTuple):
    """How estimated targets compare with true ones; see :func:`target_f1`."""

    precision: float
    """Share of the estimated targets that are true; 0 where there is none."""
    recall: float
    """Share of the true targets that are estimated."""
    f1: float
    """Their harmonic mean."""


def target_f1(
    true: Any, estimated: Any, assignment: Any, *, threshold: float = 0.5, top_n: int | None = None
) -> TargetScores:
    """Precision, recall and F1 of the targets of perturbations, over all pairs of a perturbation and a latent.

    Columns of `estimated` are put in the order of the true latents by `assignment`, which is that of :func:`mcc`
    between the latents of cells. It must go by absolute correlations: gates have no sign, but an assignment by signed
    ones moves the gates of every latent that was found upside down to the wrong place.

    Targets in an estimated latent without a true partner are false; true targets in a latent without an estimated
    partner are missed. Pass only perturbations whose cells were seen, and not the control: gates of others still are
    as they were initialised.

    Parameters
    ----------
    true
        True targets, perturbations x latents, bool.
    estimated
        Estimated targets: bool, or probabilities, of which those above `threshold` count, or shifts with `top_n`.
    assignment
        For each true latent the column of `estimated` that it was matched with, -1 for none.
    threshold
        Probabilities above it count.
    top_n
        For a model without gates: `estimated` are shifts, and the `top_n` largest absolute ones of each perturbation
        count (the first, where they tie). One that is exactly 0 never does. The code of sVAE+ scores VAE and iVAE
        with 2.

    Returns
    -------
    Precision, recall and F1.

    Raises
    ------
    ValueError
        If shapes disagree, there is no true target, or values are no probabilities and `top_n` is not given.

    References
    ----------
    Lopez et al. (2023), Learning causal representations of single cells via sparse mechanism shift modeling, CLeaR.

    Examples
    --------
    >>> import numpy as np
    >>> true = np.array([[1, 0, 0], [0, 1, 1]], bool)
    >>> probability = np.array([[0.1, 0.2, 0.9], [0.8, 0.3, 0.6]])
    >>> [round(float(score), 2) for score in target_f1(true, probability, [2, 0, 1])]
    [0.67, 0.67, 0.67]
    >>> shifts = np.array([[0.0, 0.1, -4.0], [3.0, -3.5, 0.2]])
    >>> target_f1(true, shifts, [2, 0, 1], top_n=2).recall
    1.0
    """
    values = read_matrix(estimated, "estimated")
    if top_n is not None:
        gates = _largest(values, top_n)
    else:
        if values.min() < 0 or values.max() > 1:
            msg = (
                f"`estimated` has values from {values.min():.3g} to {values.max():.3g}, which are no probabilities. "
                "Pass gates or probabilities, or shifts with `top_n`."
            )
            raise ValueError(msg)
        gates = values > threshold
    wanted, found = _side_by_side(_read_targets(true), gates, assignment)
    hits = int((wanted & found).sum())
    n_wanted, n_found = int(wanted.sum()), int(found.sum())
    return TargetScores(hits / max(n_found, 1), hits / n_wanted, 2 * hits / (n_wanted + n_found))


def target_auprc(true: Any, score: Any, assignment: Any) -> float:
    """Area under the precision-recall curve of the targets of perturbations, which needs no threshold.

    It is the average precision, mean precision at each true target when all pairs of a perturbation and a latent are
    ranked by `score`. Scores at random have the share of true targets. Latents are matched as for :func:`target_f1`;
    true targets in a latent without an estimated partner rank last.

    Parameters
    ----------
    true
        True targets, perturbations x latents, bool.
    score
        The larger, the surer a target: a probability, an evidence, the absolute value of a shift (not the shift).
    assignment
        For each true latent the column of `score` that it was matched with, -1 for none; from :func:`mcc`.

    Returns
    -------
    An area between 0 and 1.

    Raises
    ------
    ValueError
        If shapes disagree or there is no true target.

    Examples
    --------
    >>> import numpy as np
    >>> true = np.array([[1, 0, 0], [0, 1, 1]], bool)
    >>> shifts = np.array([[0.0, 0.1, -4.0], [3.0, -3.5, 0.2]])
    >>> target_auprc(true, np.abs(shifts), [2, 0, 1])
    1.0
    """
    values = read_matrix(score, "score")
    wanted, ranked = _side_by_side(_read_targets(true), values, assignment, missing=np.nextafter(values.min(), -np.inf))
    return float(average_precision_score(wanted.ravel(), ranked.ravel()))


def _read_targets(true: Any) -> np.ndarray:
    targets = read_matrix(true, "true")
    if not np.isin(targets, (0, 1)).all():
        msg = "`true` must hold targets, True or False, but has other values."
        raise ValueError(msg)
    if not targets.any():
        msg = "`true` holds no target, so that there is none to find."
        raise ValueError(msg)
    return targets.astype(bool)


def _largest(shifts: np.ndarray, top_n: int) -> np.ndarray:
    """The `top_n` largest absolute shifts of each row, those that are 0 left out."""
    if isinstance(top_n, bool) or not isinstance(top_n, (int, np.integer)) or top_n < 1:
        msg = f"`top_n` is {top_n!r}, but a whole number of at least 1 was expected."
        raise ValueError(msg)
    size = np.abs(shifts)
    chosen = np.zeros(shifts.shape, bool)
    np.put_along_axis(chosen, np.argsort(-size, axis=1, kind="stable")[:, :top_n], values=True, axis=1)
    return chosen & (size > 0)


def _side_by_side(
    true: np.ndarray, estimated: np.ndarray, assignment: Any, missing: float = 0
) -> tuple[np.ndarray, np.ndarray]:
    """True and estimated values in the order of the true latents, then of estimated ones without a partner."""
    if len(true) != len(estimated):
        msg = f"`true` has {len(true)} perturbations, but {len(estimated)} were estimated; pass the same ones."
        raise ValueError(msg)
    of_true = np.asarray(assignment)
    n_estimated = estimated.shape[1]
    partners = of_true[of_true >= 0] if of_true.dtype.kind in "iu" else of_true
    if (
        of_true.shape != true.shape[1:]
        or of_true.dtype.kind not in "iu"
        or len(np.unique(partners)) < len(partners)
        or (of_true >= n_estimated).any()
    ):
        msg = (
            f"`assignment` must name for each of the {true.shape[1]} true latents another one of the {n_estimated} "
            "estimated ones, or -1, as `metrics.mcc(...).assignment` does."
        )
        raise ValueError(msg)
    matched = np.where(of_true >= 0, estimated[:, of_true], np.asarray(missing, estimated.dtype))
    surplus = np.setdiff1d(np.arange(n_estimated), partners)
    nothing = np.zeros((len(true), len(surplus)), bool)
    return np.concatenate([true, nothing], axis=1), np.concatenate([matched, estimated[:, surplus]], axis=1)
