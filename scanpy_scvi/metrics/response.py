"""Whether a predicted response is the observed one."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .columns import correlations
from .groups import Moments, moments, read_expression


class R2(NamedTuple):
    """The two things that are called R²."""

    correlation: float
    """Squared Pearson correlation, blind to scale and offset; 0 where one side is constant."""
    determination: float
    """Coefficient of determination, 1 - residual / total sum of squares: 1 is ideal, and it may be far below 0. NaN
    where the real values are constant."""


class ResponseR2(NamedTuple):
    """How well mean expression after a perturbation was predicted; see :func:`response_r2`."""

    mean: R2
    """Of mean expression, over all genes."""
    mean_top: R2
    """The same over the genes that respond most."""
    difference: R2
    """Of the difference of mean expression to control, over all genes."""
    difference_top: R2
    """The same over the genes that respond most."""
    top_genes: np.ndarray
    """Positions of those genes."""


def response_r2(predicted: Any, real: Any, control: Any, *, top_n: int = 100, genes: Any = None) -> ResponseR2:
    r"""R² of predicted mean expression and of the predicted change, for all genes and for those that respond most.

    With means over cells of log-normalised expression, :math:`\hat y` of predicted cells, :math:`y` of real perturbed
    cells and :math:`c` of control cells, *mean* compares :math:`\hat y` with :math:`y` over genes and *difference*
    compares :math:`\hat y - c` with :math:`y - c`.

    Papers on the prediction of responses report the squared correlation of the mean. It is high for a prediction that
    says nothing: control cells pass for perturbed ones with 0.87 on a common benchmark, since most genes do not respond
    and genes differ much more from each other than conditions do. It also forgives a wrong scale and a wrong offset.
    The difference to control takes the first away, and the coefficient of determination,

    .. math:: 1 - \frac{\sum_g (y_g - \hat y_g)^2}{\sum_g (y_g - \bar y)^2},

    the second; all are given. With `predicted` the control cells, the correlation of the difference is 0.

    The genes that respond most are those with the largest absolute t of Welch's test between real and control cells, up
    or down. The prediction has no part in the choice. Where one of the two has a single row, the size of the difference
    takes the place of t.

    Parameters
    ----------
    predicted
        Predicted expression after the perturbation, cells x genes, dense or scipy.sparse; or one row of means.
    real
        Real expression after the perturbation, on the same scale.
    control
        Real expression without it.
    top_n
        Number of genes that respond most; all, where there are fewer.
    genes
        Their positions, or a mask over genes, to choose them otherwise.

    Returns
    -------
    The scores, and the genes of the second and the fourth.

    Raises
    ------
    ValueError
        If the three do not have the same genes, or `genes` does not go with them.

    References
    ----------
    Lotfollahi, Wolf and Theis (2019), scGen predicts single-cell perturbation responses, Nature Methods 16:715-721,
    https://doi.org/10.1038/s41592-019-0494-8. Welch (1947), Biometrika 34:28-35.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> base, shift = 2 * rng.random(200), np.r_[np.ones(10), -np.ones(10), np.zeros(180)]
    >>> control, real = (rng.normal(mean, 0.1, size=(50, 200)) for mean in (base, base + shift))
    >>> found = response_r2(control, real, control, top_n=20)  # no effect, as a prediction
    >>> round(found.mean.correlation, 1), found.difference.correlation, set(found.top_genes) == set(range(20))
    (0.8, 0.0, True)
    """
    names = ("predicted", "real", "control")
    sets = [read_expression(x, n, counts=False) for x, n in zip((predicted, real, control), names, strict=True)]
    n_genes = [x.shape[1] for x in sets]
    if len(set(n_genes)) > 1:
        msg = f"All three must have the same genes, but they have {', '.join(map(str, n_genes))} of them."
        raise ValueError(msg)
    made, found, baseline = (moments(x, np.zeros(x.shape[0], int), 1) for x in sets)
    top = _most_changed(found, baseline, top_n) if genes is None else _read_genes(genes, n_genes[0])
    guess, truth, zero = made.mean[0], found.mean[0], baseline.mean[0]
    return ResponseR2(
        mean=_r2(guess, truth),
        mean_top=_r2(guess[top], truth[top]),
        difference=_r2(guess - zero, truth - zero),
        difference_top=_r2((guess - zero)[top], (truth - zero)[top]),
        top_genes=top,
    )


def _r2(guess: np.ndarray, truth: np.ndarray) -> R2:
    total = ((truth - truth.mean()) ** 2).sum()
    determination = 1 - ((truth - guess) ** 2).sum() / total if np.ptp(truth) > 0 else np.nan
    return R2(float(correlations(guess[:, None], truth[:, None])[0, 0] ** 2), float(determination))


def _most_changed(real: Moments, control: Moments, top_n: int) -> np.ndarray:
    """Genes with the largest absolute t of Welch's test, the largest first."""
    if isinstance(top_n, bool) or not isinstance(top_n, (int, np.integer)) or top_n < 2:
        msg = f"`top_n` is {top_n!r}, but a whole number of at least 2 was expected."
        raise ValueError(msg)
    size = np.abs(real.mean[0] - control.mean[0])
    degrees = [int(m.n_cells[0]) - 1 for m in (real, control)]
    if min(degrees) > 0:
        # the variance of a mean: of the population, over n - 1
        error = np.sqrt(sum(m.var[0] / d for m, d in zip((real, control), degrees, strict=True)))
        size = np.divide(size, error, out=np.where(size > 0, np.inf, 0.0), where=error > 0)
    return np.argsort(-size, kind="stable")[:top_n]


def _read_genes(genes: Any, n_genes: int) -> np.ndarray:
    chosen = np.asarray(genes)
    if chosen.dtype == bool and chosen.shape == (n_genes,):
        chosen = np.flatnonzero(chosen)
    inside = chosen.ndim == 1 and chosen.dtype.kind in "iu" and ((chosen >= 0) & (chosen < n_genes)).all()
    if not inside or len(chosen) < 2 or len(np.unique(chosen)) < len(chosen):
        msg = f"`genes` must be a mask or different positions of at least 2 of the {n_genes} genes."
        raise ValueError(msg)
    return chosen
