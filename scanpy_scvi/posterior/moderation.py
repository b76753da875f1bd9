"""Variances of many genes, each known from few donors, moderated by each other.

    s2_g | sigma2_g ~ sigma2_g chi2_d / d,    1 / sigma2_g ~ chi2_d0 / (d0 s02_g)

    E[1 / sigma2_g | s2_g] = 1 / v_g,    v_g = (d0 s02_g + d s2_g) / (d0 + d)

and (estimate - truth) / sqrt(factor v_g) has a t distribution with d0 + d degrees of freedom. d0 and the prior variance
s02_g are found by the mean and the variance of log s2 over genes; s02_g follows a smooth curve over the genes' mean
levels, since genes with few counts vary more. Smyth 2004, Stat Appl Genet Mol Biol 3:3; the curve as in limma-trend:
Law et al. 2014, Genome Biol 15:R29.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

LEAST_VARIANCE = 1e-5
"""Share of the median below which a variance is taken for this much, since its logarithm would dwarf the others."""
LEAST_GENES = 50
"""Well-seen genes that are enough to find d0 from."""
GENES_PER_KNOT = 25
MOST_INTERVALS = 4


class Moderated(NamedTuple):
    """Variances after moderation."""

    variance: np.ndarray
    """v, (n_genes,)."""
    prior: np.ndarray
    """s02, (n_genes,)."""
    prior_df: float
    """d0; infinite where the variances differ no more than chance makes them."""


def moderate(
    variances: np.ndarray, df: float, level: np.ndarray | None = None, well_seen: np.ndarray | None = None
) -> Moderated:
    """Moderate variances, each with `df` degrees of freedom.

    Parameters
    ----------
    variances
        s2, (n_genes,).
    df
        d.
    level
        Mean level of each gene; None takes one prior variance for all.
    well_seen
        Genes that d0 is found from, where they are enough; None for all. The spread of genes with few counts is that of
        the counting, which is alike for all of them: many such genes would make the others seem alike too.
    """
    positive = variances[variances > 0]
    if not len(positive):
        msg = "No gene varies between donors, so the variance cannot be estimated. Are they copies of one another?"
        raise ValueError(msg)
    s2 = np.maximum(variances, LEAST_VARIANCE * np.median(positive))
    z = np.log(s2) - digamma(df / 2) + np.log(df / 2)  # log s2 without the mean of log(chi2_d / d)
    design = np.ones((len(z), 1)) if level is None else natural_spline(level)
    fit = design @ np.linalg.lstsq(design, z, rcond=None)[0]
    if well_seen is None or well_seen.sum() < LEAST_GENES:
        well_seen = np.ones(len(z), bool)
    residual = (z - fit)[well_seen]
    spread = float(np.sum(residual**2)) / max(len(residual) - design.shape[1], 1) - float(polygamma(1, df / 2))
    if spread <= 0:
        prior = np.exp(fit)
        return Moderated(prior, prior, np.inf)
    d0 = 2 * inverse_trigamma(spread)
    prior = np.exp(fit + digamma(d0 / 2) - np.log(d0 / 2))
    return Moderated((d0 * prior + df * s2) / (d0 + df), prior, d0)


def inverse_trigamma(value: float) -> float:
    """Solve trigamma(x) = `value` for x; trigamma falls from infinity to 0."""
    low, high = np.log(1e-8), np.log(1e8)
    clipped = np.clip(value, float(polygamma(1, np.exp(high))), float(polygamma(1, np.exp(low))))
    return float(np.exp(brentq(lambda t: float(polygamma(1, np.exp(t))) - clipped, low, high)))


def natural_spline(x: np.ndarray) -> np.ndarray:
    """Columns of a natural cubic spline with knots at quantiles; fewer knots where there are few genes.

    Hastie, Tibshirani, Friedman 2009, The Elements of Statistical Learning, eqs. 5.4 and 5.5.
    """
    x = (x - x.mean()) / max(float(x.std()), 1e-12)
    n_intervals = min(MOST_INTERVALS, len(x) // GENES_PER_KNOT)
    knots = np.unique(np.quantile(x, np.linspace(0, 1, n_intervals + 1))) if n_intervals else x[:1]
    columns = [np.ones_like(x)]
    if len(knots) > 1:
        columns.append(x)
        cubes = np.clip(x[:, None] - knots, 0, None) ** 3
        slopes = (cubes[:, :-1] - cubes[:, -1:]) / (knots[-1] - knots[:-1])
        columns += list((slopes[:, :-1] - slopes[:, -1:]).T)
    return np.stack(columns, axis=1)
