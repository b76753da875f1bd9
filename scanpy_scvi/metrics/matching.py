"""Whether latent dimensions are the true ones, up to their order and signs."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata

from .columns import correlations, read_matrix

Correlation = Literal["pearson", "spearman"]


class Match(NamedTuple):
    """Which estimated latent is which true one; see :func:`mcc`. Arrays have an entry for each true latent."""

    mcc: float
    """Mean absolute correlation of the true latents with their partners."""
    assignment: np.ndarray
    """Column of the estimated latent that is its partner; -1 without one."""
    signs: np.ndarray
    """-1 where the partner points the other way, 1 where it does not, 0 without one."""
    correlations: np.ndarray
    """Correlation with the partner, with its sign; 0 without one."""


def mcc(true: Any, estimated: Any, *, method: Correlation = "pearson") -> Match:
    r"""Mean correlation coefficient of true latents with estimated ones, each with a partner of its own.

    A latent space has no order and no signs. So with :math:`r_{jk}` the correlation over cells of true latent j with
    estimated latent k, partners are those of the linear assignment

    .. math:: \mathrm{MCC} = \frac{1}{p} \max_\pi \sum_{j=1}^p \big| r_{j \pi(j)} \big|,

    where no two true latents share a partner. It is 1 where the estimate is a permutation of the truth with any signs
    and scales, and lower where it is a rotation: :func:`latent_r2` does not see the difference.

    The two may have different numbers of latents. The mean is over all p true ones, and one without a partner counts
    as 0; surplus estimated latents cost nothing. A latent that is constant has correlation 0 with all others.

    The absolute value matters. An assignment of largest signed correlations passes over a latent that is found with
    its sign reversed, and all that is then compared by it (:func:`target_f1`) is compared with the wrong latent.

    Parameters
    ----------
    true
        True latents, cells x latents.
    estimated
        Estimated latents (posterior means) of the same cells, cells x latents.
    method
        Kind of correlation: ``"pearson"``, or ``"spearman"``, which any monotone map of a latent leaves as it is.

    Returns
    -------
    The score, the partner of each true latent, and their signs and correlations.

    Raises
    ------
    ValueError
        If the two are not matrices of finite numbers over the same cells, or the method is unknown.

    References
    ----------
    Khemakhem et al. (2020), Variational autoencoders and nonlinear ICA: a unifying framework, AISTATS.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.random.default_rng(0).normal(size=(100, 3))
    >>> match = mcc(z, np.stack([z[:, 2], -z[:, 0], 2 * z[:, 1]], axis=1))
    >>> round(match.mcc, 6), match.assignment.tolist(), match.signs.tolist()
    (1.0, [1, 2, 0], [-1, 1, 1])
    """
    if method not in get_args(Correlation):
        msg = f"`method` is {method!r}, but one of {', '.join(map(repr, get_args(Correlation)))} was expected."
        raise ValueError(msg)
    true, estimated = _read_latents(true, estimated)
    if method == "spearman":
        true, estimated = (rankdata(z, axis=0) for z in (true, estimated))
    r = correlations(true, estimated)
    rows, columns = linear_sum_assignment(-np.abs(r))
    assignment, signs, found = np.full(len(r), -1), np.zeros(len(r), int), np.zeros(len(r))
    assignment[rows] = columns
    found[rows] = r[rows, columns]
    signs[rows] = np.where(found[rows] < 0, -1, 1)
    return Match(float(np.abs(found).mean()), assignment, signs, found)


def latent_r2(true: Any, estimated: Any) -> float:
    """Share of the true latents' variance that is linear in the estimated ones, averaged over the true latents.

    Each true latent is regressed on all estimated ones and a constant, by least squares on the cells that are given.
    It says whether the subspace was found; any rotation of the estimate has the same score (see :func:`mcc`). As the
    cells that are fitted are scored, it grows with the number of estimated latents, by about one over the number of
    cells each. A true latent that is constant counts as 0.

    Parameters
    ----------
    true
        True latents, cells x latents.
    estimated
        Estimated latents of the same cells, cells x latents.

    Returns
    -------
    A share between 0 and 1.

    Raises
    ------
    ValueError
        If the two are not matrices of finite numbers over the same cells.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.random.default_rng(0).normal(size=(100, 2))
    >>> rotation = np.sqrt(0.5) * np.array([[1, -1], [1, 1]])
    >>> round(latent_r2(z, z @ rotation), 6), mcc(z, z @ rotation).mcc < 0.8
    (1.0, True)
    """
    true, estimated = _read_latents(true, estimated)
    true, estimated = true - true.mean(0), estimated - estimated.mean(0)
    fitted = estimated @ np.linalg.lstsq(estimated, true, rcond=None)[0]
    total, left = (true**2).sum(0), ((true - fitted) ** 2).sum(0)
    varies = np.ptp(true, axis=0) > 0
    share = 1 - np.divide(left, total, out=np.ones_like(total), where=varies)
    return float(np.clip(share, 0, 1).mean())


def _read_latents(true: Any, estimated: Any) -> tuple[np.ndarray, np.ndarray]:
    true, estimated = read_matrix(true, "true"), read_matrix(estimated, "estimated")
    if len(true) != len(estimated) or len(true) < 2:
        msg = (
            f"`true` has {len(true)} cells and `estimated` has {len(estimated)}, but the same cells, and at least 2, "
            "were expected."
        )
        raise ValueError(msg)
    return true, estimated
