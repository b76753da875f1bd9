"""Whether predicted effects of perturbations are the observed ones."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from .columns import correlations
from .groups import moments, read_expression, read_groups

Scale = Literal["counts", "log"]


class EffectFidelity(NamedTuple):
    """Agreement of predicted with observed effects; see :func:`ate`."""

    all_genes: float
    """Mean over perturbations of the correlation over all genes."""
    top_genes: float
    """Mean over perturbations of the correlation over the genes that change most."""
    rank: float
    """Mean rank of the right perturbation; 0 is ideal, 0.5 is chance, NaN with one perturbation."""
    groups: np.ndarray
    """Names of the perturbations, sorted; the arrays below go with them."""
    group_all_genes: np.ndarray
    group_top_genes: np.ndarray
    group_rank: np.ndarray
    n_cells: np.ndarray
    """Observed cells of each."""


class _Effects(NamedTuple):
    """Differences of mean log expression to control, perturbations x genes."""

    names: np.ndarray
    difference: np.ndarray
    n_cells: np.ndarray


def ate(
    predicted: Any,
    predicted_groups: Any,
    real: Any,
    real_groups: Any,
    *,
    control: str = "control",
    scale: Scale = "counts",
    top_n: int = 20,
) -> EffectFidelity:
    r"""Correlate predicted average effects of perturbations with observed ones.

    The effect of perturbation k on gene g is a difference of means over cells,

    .. math::
        \Delta_{kg} = \mathrm{mean}_{n \in k} y_{ng} - \mathrm{mean}_{n \in \mathrm{control}} y_{ng}, \qquad
        y_{ng} = \log_2 \big( 1 + 10^4 x_{ng} / \textstyle\sum_h x_{nh} \big),

    once of predicted cells (draws from a model) and once of real ones, which the model should not have seen. Scores are
    the Pearson correlation over genes between the two, for all genes and for the `top_n` that change most in the real
    cells, and the *rank*: the share of the other perturbations whose observed effect correlates more with the
    prediction than that of the right one (ties count half). Look at it: the same average effect predicted for every
    perturbation may correlate well with each, but has a rank of 0.5. An effect that is the same for all genes (none,
    say) has correlation 0.

    Parameters
    ----------
    predicted
        Predicted counts, cells x genes, dense or scipy.sparse.
    predicted_groups
        The perturbation of each predicted cell. Those of `control` are what effects are differences to; without any,
        the real control cells are.
    real
        Real counts of the same genes.
    real_groups
        The perturbation of each real cell; `control` and those that are scored.
    control
        Label of control cells.
    scale
        ``"counts"`` is put on the scale of the formula. ``"log"`` is compared as it is, so that predicted means
        can be passed as well, a row for each perturbation.
    top_n
        Genes with the largest absolute observed effect of a perturbation, for the second score.

    Returns
    -------
    The scores, over all perturbations and of each.

    Raises
    ------
    ValueError
        If a matrix or its labels do not fit, `real` has no control, or a perturbation of `real` was not predicted.

    References
    ----------
    Bereket and Karaletsos (2023), Modelling cellular perturbations with the sparse additive mechanism shift
    variational autoencoder, NeurIPS.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> rates = np.array([[8.0, 8, 8, 8], [2, 8, 8, 8], [8, 8, 8, 16]])
    >>> groups = np.repeat(["control", "A", "B"], 500)
    >>> draw = lambda: rng.poisson(np.repeat(rates, 500, axis=0))
    >>> found = ate(draw(), groups, draw(), groups, top_n=3)
    >>> found.all_genes > 0.95, found.rank, found.groups.tolist()
    (True, 0.0, ['A', 'B'])
    """
    if scale not in get_args(Scale):
        msg = f"`scale` is {scale!r}, but one of {', '.join(map(repr, get_args(Scale)))} was expected."
        raise ValueError(msg)
    if isinstance(top_n, bool) or not isinstance(top_n, (int, np.integer)) or top_n < 2:
        msg = f"`top_n` is {top_n!r}, but a whole number of at least 2 was expected."
        raise ValueError(msg)
    observed, made = _observed_and_predicted(predicted, predicted_groups, real, real_groups, control, scale)
    # one matrix product gives the effect with its own prediction, on the diagonal, and with all others
    r = correlations(made.difference.T, observed.difference.T)
    order = np.argsort(-np.abs(observed.difference), axis=1, kind="stable")[:, :top_n]
    top = np.array(
        [
            correlations(guess[genes, None], truth[genes, None])[0, 0]
            for guess, truth, genes in zip(made.difference, observed.difference, order, strict=True)
        ]
    )
    own, rank = np.diagonal(r).copy(), _ranks(r)
    return EffectFidelity(
        float(own.mean()), float(top.mean()), float(rank.mean()), observed.names, own, top, rank, observed.n_cells
    )


def _ranks(r: np.ndarray) -> np.ndarray:
    """Share of the other columns that exceed a row's entry on the diagonal, ties as a half."""
    own = np.diagonal(r)[:, None]
    others = (r > own).sum(1) + ((r == own).sum(1) - 1) / 2
    return np.divide(others, len(r) - 1, out=np.full(len(r), np.nan), where=len(r) > 1)


def _observed_and_predicted(
    predicted: Any, predicted_groups: Any, real: Any, real_groups: Any, control: str, scale: Scale
) -> tuple[_Effects, _Effects]:
    counts = scale == "counts"
    x, y = (read_expression(v, n, counts=counts) for v, n in ((predicted, "predicted"), (real, "real")))
    if x.shape[1] != y.shape[1]:
        msg = f"`predicted` has {x.shape[1]} genes and `real` has {y.shape[1]}, but the same genes were expected."
        raise ValueError(msg)
    names, codes = read_groups(real_groups, y.shape[0], "real_groups")
    made_names, made_codes = read_groups(predicted_groups, x.shape[0], "predicted_groups")
    if control not in names or len(names) < 2:
        msg = (
            f"`real_groups` must hold the control {control!r} and perturbations, but has {_few(names)}. "
            "Name the control with `control`."
        )
        raise ValueError(msg)
    others = names[names != control]
    lacking = others[~np.isin(others, made_names)]
    if len(lacking):
        msg = f"No cell of {_few(lacking)} was predicted. Predict some, or leave these perturbations out of `real`."
        raise ValueError(msg)
    found, made = (
        moments(values, of, len(n), counts=counts) for values, of, n in ((y, codes, names), (x, made_codes, made_names))
    )
    baseline = found.mean[names == control]
    made_baseline = made.mean[made_names == control] if control in made_names else baseline
    of_others, of_made = np.searchsorted(names, others), np.searchsorted(made_names, others)
    return (
        _Effects(others, found.mean[of_others] - baseline, found.n_cells[of_others]),
        _Effects(others, made.mean[of_made] - made_baseline, made.n_cells[of_made]),
    )


def _few(names: np.ndarray) -> str:
    shown = ", ".join(map(repr, names[:5]))
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
