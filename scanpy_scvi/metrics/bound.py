"""The importance-weighted bound on the evidence, averaged over perturbations."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.special import logsumexp

from .groups import read_groups


class Iwelbo(NamedTuple):
    """Bounds on the log-likelihood, in nats; see :func:`iwelbo`."""

    mean: float
    """Mean over the groups that are large enough; without groups over cells."""
    groups: np.ndarray
    """Names of all groups, sorted; empty without groups, as are the next two."""
    group_means: np.ndarray
    """Mean over the cells of each group."""
    n_cells: np.ndarray
    """Cells of each group."""
    cells: np.ndarray
    """Bound of each cell."""


def iwelbo(log_weights: Any, groups: Any = None, *, min_cells: int = 10) -> Iwelbo:
    r"""Importance-weighted evidence bound of cells, and its mean over perturbations.

    For draws :math:`z_s \sim q(z \mid x_n)` and a cell n of perturbation k, with

    .. math::

        \log w_{sn} = \log p(x_n \mid z_s) + \log p(z_s \mid k) - \log q(z_s \mid x_n), \qquad
        \mathrm{IWELBO}_n = \log \frac{1}{S} \sum_{s=1}^S w_{sn},

    the bound lies below the log-likelihood and grows towards it with S, so compare only values of equal S. Cells are
    averaged within a perturbation and then perturbations, so that each counts alike.

    It measures the fit, not whether latents are the true ones: a prior with a free mean for each perturbation can have
    as good a bound as one with the true sparse shifts. Use :func:`mcc` and :func:`target_f1` for that.

    Parameters
    ----------
    log_weights
        Logarithms of importance weights, draws x cells.
    groups
        The perturbation of each cell; without it, the mean is over cells.
    min_cells
        A group enters the mean if it has more cells than this.

    Returns
    -------
    The mean, and the bounds of groups and cells.

    Raises
    ------
    ValueError
        If weights are no matrix, are missing or infinite (a weight of 0, ``-inf``, may be), or no group is large
        enough.

    References
    ----------
    Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR. Lopez et al. (2023), Learning causal
    representations of single cells via sparse mechanism shift modeling, CLeaR.

    Examples
    --------
    >>> import numpy as np
    >>> weights = np.array([[1.0, 2.0, 4.0], [3.0, 2.0, 4.0]])
    >>> found = iwelbo(np.log(weights), ["a", "a", "b"], min_cells=0)
    >>> np.exp(found.cells).round(6).tolist(), np.exp(2 * found.mean).round(6).tolist()
    ([2.0, 2.0, 4.0], 8.0)
    """
    w = np.asarray(log_weights)
    if w.ndim != 2 or 0 in w.shape or w.dtype.kind not in "iuf":
        msg = f"`log_weights` must be a matrix, draws x cells; it has the shape {w.shape} and the type {w.dtype}."
        raise ValueError(msg)
    if np.isnan(w).any() or np.isposinf(w).any():
        msg = "`log_weights` has values that are missing or infinite."
        raise ValueError(msg)
    cells = np.asarray(logsumexp(w.astype(np.float64, copy=False), axis=0)) - np.log(len(w))
    if groups is None:
        return Iwelbo(float(cells.mean()), np.empty(0, object), np.empty(0), np.empty(0, int), cells)
    names, codes = read_groups(groups, len(cells), "groups")
    n_cells = np.bincount(codes)
    means = np.bincount(codes, cells) / n_cells
    large = n_cells > min_cells
    if not large.any():
        msg = f"No group has more than {min_cells} cells; the largest has {n_cells.max()}. Lower `min_cells`."
        raise ValueError(msg)
    return Iwelbo(float(means[large].mean()), names, means, n_cells, cells)
