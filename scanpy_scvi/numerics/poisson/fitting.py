"""Maximum-likelihood fit of a Poisson distribution to each gene.

With size factors s, μ_ng = s_n m_g; the maximum is m_g = Σ_n x_ng / Σ_n s_n.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._jit import exact
from ..columns import by_gene, entry_buffers, gene_entries
from .pmf import log_probability


class PoissonFit(NamedTuple):
    """Poisson fit of every gene.

    Attributes
    ----------
    mean
        Mean of a cell whose size factor is 1; 0 for a gene without counts.
    log_likelihood
        Its maximum, summed over cells.
    """

    mean: np.ndarray
    log_likelihood: np.ndarray


@exact
def _fit(indptr, cells, values, n_cells, size_factors, mean, log_likelihood):
    histogram, x, s, w = entry_buffers(n_cells)
    exposure = size_factors.sum() if size_factors.size > 0 else float(n_cells)
    for g in range(mean.size):
        at = slice(indptr[g], indptr[g + 1])
        mean[g] = values[at].sum() / exposure
        if mean[g] == 0:
            continue
        for j in range(gene_entries(values[at], cells[at], n_cells, size_factors, histogram, x, s, w)):
            log_likelihood[g] += w[j] * log_probability(x[j], s[j] * mean[g])


def fit(x: Any, size_factors: Any = None) -> PoissonFit:
    """Fit a Poisson distribution to each gene by maximum likelihood.

    Parameters
    ----------
    x
        Counts, cells x genes: a dense array or a scipy.sparse matrix, which stays sparse.
    size_factors
        One positive number per cell, by which its means are multiplied; None for 1.

    Returns
    -------
    Mean and log-likelihood of every gene, float64. A gene without counts has mean 0 and log-likelihood 0.

    Raises
    ------
    ValueError
        If x is not a matrix of counts with at least one cell, or if the size factors do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> fit(np.array([[0, 2], [1, 4]])).mean
    array([0.5, 3. ])
    >>> fit(np.array([[0, 2], [1, 4]]), size_factors=[1, 2]).mean
    array([0.33333333, 2.        ])
    """
    columns = by_gene(x, size_factors)
    n_genes = len(columns.indptr) - 1
    result = PoissonFit(np.zeros(n_genes), np.zeros(n_genes))
    _fit(*columns, *result)
    return result
