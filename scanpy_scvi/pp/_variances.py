"""How much each gene varies about what its cells' sizes let expect, and how much the fits say it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import expit

if TYPE_CHECKING:
    from ._gene_fits import GeneFits


class Variances(NamedTuple):
    """Mean squares of x_n - s_n m over cells, with m the mean count; (n_genes,), NaN for genes without counts."""

    observed: np.ndarray
    nb: np.ndarray
    """As expected under the negative binomial fit."""
    zinb: np.ndarray
    """As expected under the zero-inflated fit."""


def variances(counts: sparse.csc_array, size_factors: np.ndarray, fits: GeneFits) -> Variances:
    """Compute them from moments, without a dense matrix.

    Parameters
    ----------
    counts
        Cells x genes.
    size_factors
        With a mean of one, (n_cells,); so the mean square under a Poisson distribution is m.
    fits
        The fits to these.
    """
    m, s2 = fits.poisson.mean, float(np.mean(size_factors**2))
    with_size = counts.T @ size_factors / len(size_factors)
    data = np.square(counts.data, dtype=np.float64)  # float32 would round what is then summed
    squares = sparse.csc_array((data, counts.indices, counts.indptr), shape=counts.shape).sum(axis=0) / len(
        size_factors
    )
    observed = squares - 2 * m * with_size + s2 * m**2
    nb = fits.nb.mean + s2 * (fits.nb.mean**2 / fits.nb.theta + (fits.nb.mean - m) ** 2)
    pi, mu = expit(fits.zinb.zero_logits), fits.zinb.mean
    mean = (1 - pi) * mu
    zinb = mean + s2 * (mean * mu * (1 / fits.zinb.theta + pi) + (mean - m) ** 2)
    return Variances(*(np.where(m > 0, values, np.nan) for values in (observed, nb, zinb)))
