"""Whether genes change with a condition in the population that the donors are drawn from.

    paired:    y_jg (condition) - y_jg (reference) = beta_g + (difference of shares)_j b_g + e_jg
    unpaired:  y_jg = a_g + beta_g [j in the condition] + shares_j b_g + e_jg,      e_jg ~ N(0, sigma2_g)

by least squares over donors. The shares of a unit's cells in each batch are there where the batch is corrected for;
what a batch does is known from donors alone, and their number pays for it in degrees of freedom. Where all donors have
the same shares, or a donor's cells of both conditions have, nothing is left of that term, and beta_g is the mean over
donors of their shifts, or the difference of the donors' means. Every donor counts the same, whatever its cells, and the
donors alone are replicates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from .effects import expected_fdr
from .moderation import moderate
from .shrinkage import posterior_shifts

TOLERANCE = 1e-8


@dataclass(frozen=True)
class Design:
    """Which units are compared, and what else differs between them."""

    first: np.ndarray
    """Units of the condition."""
    second: np.ndarray
    """Units of the reference; where `paired`, those of the same donors in the same order."""
    paired: bool
    shares: np.ndarray | None = None
    """Share of each unit's cells in each batch, (n_units, n_batches); None where the batch does not matter."""

    def shift(self, levels: np.ndarray) -> np.ndarray:
        """beta, (n_genes,)."""
        return self._solve[self._column] @ self._rows(levels)

    def variance(self, levels: np.ndarray) -> np.ndarray:
        """Variance between donors, s2, (n_genes,)."""
        rows = self._rows(levels)
        return ((rows - self._columns @ (self._solve @ rows)) ** 2).sum(0) / self.df

    @cached_property
    def df(self) -> int:
        """Degrees of freedom of that variance; 0 or less where nothing is left to estimate it from."""
        return len(self._columns) - int(np.linalg.matrix_rank(self._columns, tol=TOLERANCE))

    @property
    def factor(self) -> float:
        """Variance of beta, in units of that variance."""
        return float((self._solve[self._column] ** 2).sum())

    @property
    def tells(self) -> bool:
        """Whether beta can be told from the differences between batches."""
        others = np.delete(self._columns, self._column, axis=1)
        if not others.shape[1]:
            return True
        ranks = (np.linalg.matrix_rank(x, tol=TOLERANCE) for x in (self._columns, others))
        return next(ranks) > next(ranks)

    @property
    def _column(self) -> int:
        return 0 if self.paired else 1

    def _rows(self, values: np.ndarray) -> np.ndarray:
        """What is explained: the donors' shifts, or their levels."""
        if self.paired:
            return values[self.first] - values[self.second]
        return values[np.r_[self.first, self.second]]

    @cached_property
    def _columns(self) -> np.ndarray:
        """What it is explained by."""
        n = len(self.first) if self.paired else len(self.first) + len(self.second)
        columns = [np.ones(n)]
        if not self.paired:
            columns.append(np.r_[np.ones(len(self.first)), np.zeros(len(self.second))])
        if self.shares is not None:
            shares = self._rows(self.shares)[:, 1:]  # they add up to one, or their differences to zero
            columns += list(shares.T[np.ptp(shares, axis=0) > TOLERANCE if not self.paired else shares.any(0)])
        return np.stack(columns, axis=1)

    @cached_property
    def _solve(self) -> np.ndarray:
        return np.linalg.pinv(self._columns, rcond=TOLERANCE)


class Question(NamedTuple):
    """What is asked of the genes."""

    delta: float
    fdr_target: float
    interval: float


class Answer(NamedTuple):
    """Answer for each gene, (n_genes,)."""

    mean: np.ndarray
    """Posterior mean of the shift."""
    low: np.ndarray
    high: np.ndarray
    p_up: np.ndarray
    p_down: np.ndarray
    differs: np.ndarray
    """The larger of the two."""
    fdr: np.ndarray
    called: np.ndarray
    shift: np.ndarray
    """Mean of the donors' shifts, as they are."""
    donor_sd: np.ndarray
    """Standard deviation between donors, as it is."""
    error: np.ndarray
    """Standard error of the shift, moderated."""
    df: float
    """Its degrees of freedom."""
    null_share: float


def compare_donors(
    shift: np.ndarray,
    variance: np.ndarray,
    design: Design,
    *,
    level: np.ndarray,
    tested: np.ndarray,
    well_seen: np.ndarray,
    question: Question,
) -> Answer:
    """Moderate the variances, look at all shifts together, and call genes by their expected FDR.

    Parameters
    ----------
    shift
        Estimates, (n_genes,).
    variance
        s2 of each gene.
    design
        Who is compared.
    level
        Mean level of each gene, for the trend of the variances.
    tested
        Genes with enough counts; of the others nothing is said.
    well_seen
        Genes with counts enough to tell how genes differ in their variance.
    question
        What is asked.
    """
    moderated = moderate(variance[tested], design.df, level[tested], well_seen[tested])
    error = np.sqrt(moderated.variance * design.factor)
    df = design.df + moderated.prior_df
    found = posterior_shifts(shift[tested], error, df, delta=question.delta, interval=question.interval)
    mean, low, high = (_spread(values, tested, np.nan) for values in (found.mean, found.low, found.high))
    p_up, p_down = (_spread(values, tested, 0.0) for values in (found.p_up, found.p_down))
    differs = np.maximum(p_up, p_down)
    fdr = _spread(expected_fdr(differs[tested]), tested, 1.0)
    return Answer(
        mean=mean,
        low=low,
        high=high,
        p_up=p_up,
        p_down=p_down,
        differs=differs,
        fdr=fdr,
        called=tested & (fdr <= question.fdr_target),
        shift=shift,
        donor_sd=np.sqrt(variance),
        error=_spread(error, tested, np.nan),
        df=df,
        null_share=found.null_share,
    )


def _spread(values: np.ndarray, tested: np.ndarray, otherwise: float) -> np.ndarray:
    """Values of the tested genes, and what the others get."""
    out = np.full(len(tested), otherwise)
    out[tested] = values
    return out
