"""Maximum-likelihood fit of a zero-inflated negative binomial to each gene.

The negative-binomial fit is the case h = -∞. From several shares of the zeros taken as inflated, `search` climbs to the
maximum; without size factors on the histogram of the counts, whose best maximum is the start where there are some. The
result is kept if it beats the negative binomial; otherwise that one is returned with h = -∞.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .._jit import exact
from ..columns import by_gene, entry_buffers, gene_entries
from ..negative_binomial.fitting import fit_gene, log_likelihood_of
from .search import maximise, parameters

_SHARES = (0.05, 0.3, 0.6, 0.9)


class ZINBFit(NamedTuple):
    """Zero-inflated negative-binomial fit of every gene.

    Attributes
    ----------
    mean
        Mean of the negative binomial, without the inflation, of a cell whose size factor is 1; 0 without counts.
    theta
        Inverse dispersion, from 1e-8 to 1e6; NaN for a gene without counts.
    zero_logits
        Logit of the probability of an inflated zero; -inf where inflation does not raise the likelihood, NaN for a gene
        without counts.
    log_likelihood
        Its maximum, summed over cells; never below that of the negative-binomial fit.
    """

    mean: np.ndarray
    theta: np.ndarray
    zero_logits: np.ndarray
    log_likelihood: np.ndarray


@exact
def _best_of_starts(x, s, w, size, mean, theta, best):
    """Improve several starts that keep the moments; write the best of the results and return its log-likelihood.

    A share of the zeros is taken as inflated, the other cells have a larger mean and θ.
    """
    cells, zeros, pairs = 0.0, 0.0, 0.0
    for j in range(size):
        cells += w[j]
        zeros += w[j] * (x[j] == 0)
        pairs += w[j] * x[j] * (x[j] - 1.0)
    top, point = -np.inf, np.empty(3)
    for share in _SHARES:
        pi = share * zeros / cells
        m = mean / (1.0 - pi)
        excess = pairs / (cells * (1.0 - pi) * m * m) - 1.0
        excess = min(max(excess, 1e-3), 1e4) if share > _SHARES[0] else 1.0 / theta
        point[0], point[1], point[2] = math.log(mean), math.log1p(excess), -math.log1p(-pi)
        value = maximise(x, s, w, size, point)
        if value > top:
            top, best[:] = value, point
    return top


@exact
def _fit(indptr, cells, values, n_cells, size_factors, mean, theta, zero_logits, log_likelihood):
    histogram, x, s, w = entry_buffers(n_cells)
    no_factors, ones, start = np.empty(0), np.ones(x.size), np.empty(3)
    for g in range(mean.size):
        at = slice(indptr[g], indptr[g + 1])
        n_positive = indptr[g + 1] - indptr[g]
        if n_positive == 0:
            theta[g], zero_logits[g] = np.nan, np.nan
            continue
        # The histogram gives a start also where size factors make every cell an entry of its own.
        size = gene_entries(values[at], cells[at], n_cells, no_factors, histogram, x, s, w)
        m, t = fit_gene(x, ones, w, size, values[at].sum() / n_cells)
        value = _best_of_starts(x, ones, w, size, m, t, start) if n_positive < n_cells else -np.inf
        if size_factors.size > 0:
            w[:size] = 1.0
            size = gene_entries(values[at], cells[at], n_cells, size_factors, histogram, x, s, w)
            m, t = fit_gene(x, s, w, size, values[at].sum() / size_factors.sum())
            if n_positive < n_cells:
                start[0] -= math.log(size_factors.mean())
                value = maximise(x, s, w, size, start)
        mean[g], theta[g], zero_logits[g] = m, t, -np.inf
        log_likelihood[g] = log_likelihood_of(x, s, w, size, m, t)
        if value > log_likelihood[g] + 1e-8 * (1.0 + abs(value)):
            mean[g], theta[g], zero_logits[g] = parameters(start)
            log_likelihood[g] = value


def fit(x: Any, size_factors: Any = None) -> ZINBFit:
    """Fit a zero-inflated negative binomial to each gene by maximum likelihood.

    Parameters
    ----------
    x
        Counts, cells x genes: a dense array or a scipy.sparse matrix, which stays sparse.
    size_factors
        One positive number per cell, by which its means are multiplied; None for 1.

    Returns
    -------
    Mean of the negative binomial, inverse dispersion θ, zero-inflation logit and log-likelihood of every gene, float64.
    The logit is -inf where inflation does not raise the likelihood: then the rest is the negative-binomial fit. A gene
    without counts has mean 0, θ and logit NaN and log-likelihood 0.

    Raises
    ------
    ValueError
        If x is not a matrix of counts with at least one cell, or if the size factors do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x = rng.poisson(5 * rng.gamma(2, 1 / 2, (4000, 1))) * (rng.random((4000, 1)) < 0.7)
    >>> result = fit(x)
    >>> result.mean.round(1), (1 / (1 + np.exp(-result.zero_logits))).round(1)
    (array([5.2]), array([0.3]))
    """
    columns = by_gene(x, size_factors)
    n_genes = len(columns.indptr) - 1
    result = ZINBFit(np.zeros(n_genes), np.zeros(n_genes), np.zeros(n_genes), np.zeros(n_genes))
    _fit(*columns, *result)
    return result
