"""Changes between two groups of cells that the counts show and the model does not.

The decoder knows of a change what the latent space knows. A few genes that change among thousands may not be worth a
latent direction, and their draws then say, with certainty, that nothing happens. The counts of the two groups know
more: with o_k the observed and m_k the expected mean proportion of a gene, each cell in its own batch,

    r = log(o_1 / m_1) - log(o_2 / m_2),    r | beta ~ N(beta, s^2),    beta ~ sum_j pi_j N(0, sigma_j^2)

where s is what counting leaves uncertain and the pi_j, of which the first has sigma = 0, are found from all genes by EM
(adaptive shrinkage: Stephens 2017, Biostatistics 18:275). Where the model fits, nearly all of pi is at zero and nothing
changes. Draws of beta multiply the draws of the first group's proportions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..numerics.draws import multiply_by_mixture
from .group_means import overdispersion

if TYPE_CHECKING:
    from .group_draws import Expected
    from .group_means import GroupMeans

LEAST_SD = 0.02
"""Smallest sigma_j that is not zero, natural logarithm."""
PRIOR_COUNT = 10.0
"""Genes without a change that are taken as seen beforehand, as Stephens does."""
ITERATIONS = 100
CLOSE = 1e-4
NEGLIGIBLE = 1e-3
"""A gene whose expected squared change is below the square of this is left alone."""


class Residuals(NamedTuple):
    """What the counts of two groups show beyond what is expected, each (n_genes,)."""

    r: np.ndarray
    """Natural logarithm."""
    se: np.ndarray
    seen: np.ndarray
    """Whether a count was observed or expected in either group: of the other genes, nobody could have seen a change."""


class ResidualPosterior(NamedTuple):
    """Posterior of beta: a mixture of normals for each gene, (n_genes, n_components)."""

    weights: np.ndarray
    means: np.ndarray
    sds: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Expected beta, (n_genes,)."""
        return (self.weights * self.means).sum(1)


def residuals(expected: tuple[Expected, Expected], means: tuple[GroupMeans, GroupMeans]) -> Residuals:
    """r and its standard error s for each gene.

    The total of a group's counts is taken as negative binomial, with the overdispersion of single cells over their
    number. A logarithm of few counts is not normal; so s is such that (r / s)^2 is, for each group, the deviance.
    Half a molecule draws r to zero where hardly any is counted or expected, so s is at least one over the root of their
    number.

    Parameters
    ----------
    expected
        What the model expects in the two groups, each cell in its own batch.
    means
        What was counted there.
    """
    phi = overdispersion(means)
    r, squared, seen = np.zeros_like(phi), np.zeros_like(phi), np.ones(len(phi), bool)
    for sign, m, k in zip((1, -1), expected, means, strict=True):
        per_count = k.inverse_total / k.n_cells
        counted, mu = k.normalized / per_count, m.mean / per_count
        one = np.log((counted + 0.5) / (mu + 0.5))  # half a molecule, so that no logarithm is infinite
        r += sign * one
        seen &= np.maximum(counted, mu) >= 1
        squared += _squared_error(one, counted, mu, phi / k.n_cells) + m.variance / np.maximum(m.mean, 1e-30) ** 2
    return Residuals(r, np.sqrt(squared), seen)


def _squared_error(r: np.ndarray, x: np.ndarray, mu: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Squared standard error with which r is as far from zero as the deviance of a count x says.

    Deviance: 2 [x log(x / mu) - (x + 1/phi) log((1 + phi x) / (1 + phi mu))].
    """
    mu, phi = np.maximum(mu, 1e-30), np.maximum(phi, 1e-10)
    ratio = np.where(x > 0, np.log(np.maximum(x, 1e-30) / mu), 0.0)
    deviance = 2 * (x * ratio - (x + 1 / phi) * (np.log1p(phi * x) - np.log1p(phi * mu)))
    curvature = (mu + phi * mu**2) / (mu + 0.5) ** 2  # where x is near mu, both are quadratic
    near = np.abs(x - mu) < 0.05 * mu + 1e-6
    squared = np.where(near, curvature, r**2 / np.maximum(deviance, 1e-30))
    return np.maximum(squared, 1 / (np.maximum(x, mu) + 0.5))


def shrink(found: Residuals) -> ResidualPosterior:
    """Posterior of beta given r and its standard error, with the prior found from all genes that were seen."""
    r, se, seen = found
    top = max(2 * np.abs(r).max(initial=0.0), 2 * LEAST_SD)
    sigma = np.append(0.0, LEAST_SD * 2.0 ** np.arange(np.ceil(np.log2(top / LEAST_SD)) + 1))
    variance = sigma**2 + se[:, None] ** 2
    log_likelihood = -0.5 * (np.log(variance) + r[:, None] ** 2 / variance)
    likelihood = np.exp(log_likelihood - log_likelihood.max(1, keepdims=True))
    pi = np.full(len(sigma), 1 / len(sigma))
    prior = np.append(PRIOR_COUNT, np.zeros(len(sigma) - 1))
    for _ in range(ITERATIONS):
        joint = likelihood[seen] * pi
        counts = (joint / joint.sum(1, keepdims=True)).sum(0) + prior
        before, pi = pi, counts / counts.sum()
        if np.abs(pi - before).max() < CLOSE:
            break
    joint = likelihood * pi
    share = sigma**2 / variance
    return ResidualPosterior(joint / joint.sum(1, keepdims=True), share * r[:, None], np.sqrt(share) * se[:, None])


def add_residuals(posterior: ResidualPosterior, scales: np.ndarray, rng: np.random.Generator) -> None:
    """Multiply draws of proportions, (n_genes, n_draws), by draws of exp(beta); in place."""
    size = (posterior.weights * (posterior.means**2 + posterior.sds**2)).sum(1)
    multiply_by_mixture(scales, np.flatnonzero(size > NEGLIGIBLE**2), posterior, rng)
