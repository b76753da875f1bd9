"""Which of Poisson, NB and ZINB the genes ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from ._gene_fits import GeneFits

N_PARAMETERS = {"poisson": 1, "nb": 2, "zinb": 3}
"""Parameters of a gene."""
LEVEL = 0.05
"""False discovery rate of the shares that are reported."""


class BoundaryTest(NamedTuple):
    """Likelihood-ratio test of each gene; NaN for genes without counts."""

    statistic: np.ndarray
    """Twice the difference of the log-likelihoods."""
    pval: np.ndarray
    pval_adj: np.ndarray
    """Adjusted after Benjamini and Hochberg."""

    @property
    def share(self) -> float:
        """Share of the genes with counts that are significant."""
        tested = ~np.isnan(self.pval)
        return float((self.pval_adj[tested] < LEVEL).mean()) if tested.any() else 0.0


class Verdict(NamedTuple):
    """What all genes together ask for."""

    likelihood: str
    """The family with the lowest total BIC."""
    log_likelihood: dict[str, float]
    """Sum over genes and cells, by family."""
    aic: dict[str, float]
    bic: dict[str, float]


def boundary_test(smaller: np.ndarray, larger: np.ndarray, tested: np.ndarray) -> BoundaryTest:
    """Test nested fits whose smaller one lies on the boundary of the larger (a dispersion or inflation of zero).

    There, twice the difference of the log-likelihoods is zero in half of all samples and chi-square with one degree of
    freedom in the other half (Self and Liang 1987, J. Am. Stat. Assoc. 82:605, case 5).

    Parameters
    ----------
    smaller, larger
        Log-likelihoods, (n_genes,).
    tested
        Which genes have counts, (n_genes,).
    """
    statistic = np.where(tested, np.maximum(2 * (larger - smaller), 0), np.nan)
    pval = np.where(statistic > 0, stats.chi2.sf(statistic, 1) / 2, np.where(tested, 1.0, np.nan))
    pval_adj = np.full(len(pval), np.nan)
    if tested.any():
        pval_adj[tested] = stats.false_discovery_control(pval[tested])
    return BoundaryTest(statistic, pval, pval_adj)


def judge(fits: GeneFits, n_cells: int, tested: np.ndarray) -> Verdict:
    """Compare the families by their information criteria, summed over genes: each gene has parameters of its own."""
    families = (fits.poisson, fits.nb, fits.zinb)
    sums = (float(fit.log_likelihood[tested].sum()) for fit in families)
    total = dict(zip(N_PARAMETERS, sums, strict=True))
    n_genes = int(tested.sum())
    aic = {name: 2 * (k * n_genes - total[name]) for name, k in N_PARAMETERS.items()}
    bic = {name: k * n_genes * float(np.log(n_cells)) - 2 * total[name] for name, k in N_PARAMETERS.items()}
    return Verdict(min(bic, key=lambda name: bic[name]), total, aic, bic)


def in_words(verdict: Verdict, overdispersed: BoundaryTest, inflated: BoundaryTest, n_cells: int) -> str:
    """Say it in one line."""
    best = verdict.bic[verdict.likelihood]
    others = ", ".join(
        f"{name} +{(bic - best) / n_cells:,.1f}" for name, bic in verdict.bic.items() if name != verdict.likelihood
    )
    n_genes = int((~np.isnan(overdispersed.pval)).sum())
    return (
        f"the counts ask for likelihood={verdict.likelihood!r} (BIC per cell: {others}); of {n_genes:,} genes "
        f"{overdispersed.share:.1%} vary more than Poisson counts and {inflated.share:.1%} have more zeros than a "
        "negative binomial"
    )
