"""Means of the counts over groups of cells, and how uncertain counting leaves them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..numerics.group_sums import group_sums
from ..training.sources import blocks

if TYPE_CHECKING:
    from ..training.batches import CellTable

LEAST_VARIANCE = 1e-4
"""Of a logarithm over cells: a few cells with equal counts are no proof that all have them."""
FEW = 3
PER = 1e4
"""Total that counts are scaled to for the normalized mean."""


class GroupMeans(NamedTuple):
    """What was counted in one set of cells; arrays are (n_genes,), float64."""

    n_cells: int
    total: np.ndarray
    """Counts in all."""
    raw: np.ndarray
    """Mean count."""
    nonzero: np.ndarray
    """Share of cells with a count."""
    normalized: np.ndarray
    """Mean count per 10,000 of a cell's total over the modelled genes."""
    squares: np.ndarray
    """Mean square of that."""
    logs: np.ndarray
    """Mean of log(1 + count per 10,000)."""
    log_squares: np.ndarray
    """Mean square of that."""
    inverse_total: float
    """Mean of 10,000 over a cell's total: times the normalized mean, the variance of a Poisson count on that scale."""

    def at(self, genes: np.ndarray) -> GroupMeans:
        """The same for some of the genes, by position."""
        return GroupMeans._make(field[genes] if isinstance(field, np.ndarray) else field for field in self)

    def excess(self) -> np.ndarray:
        """Variance over cells beyond that of Poisson counts, times the number of cells."""
        if self.n_cells < 2:
            return np.zeros_like(self.squares)
        variance = (self.squares - self.normalized**2) * self.n_cells / max(self.n_cells - 1, 1)
        return self.n_cells * (variance - self.inverse_total * self.normalized)


class GroupSums:
    """Sums over each group, from which means of groups and of all other cells follow without another pass."""

    def __init__(self, table: CellTable, codes: np.ndarray, n_groups: int) -> None:
        """Sum the cells of each code from 0 to `n_groups` - 1; cells with other codes count nowhere."""
        scale = PER * np.exp(-table.log_total.astype(np.float64))
        inside = (codes >= 0) & (codes < n_groups)
        self.n_cells = np.bincount(codes[inside], minlength=n_groups)
        self._scale = np.bincount(codes[inside], scale[inside], minlength=n_groups)
        rows = (block.rows for block in blocks(table.counts))
        self._sums = group_sums(rows, codes.astype(np.int64), scale, (n_groups, table.n_genes))

    def of(self, groups: list[int]) -> GroupMeans:
        """Means over the cells of some groups together."""
        n = int(self.n_cells[groups].sum())
        total, *sums = (a[groups].sum(0) for a in self._sums)
        nonzero, normalized, squares, logs, log_squares = (a / n for a in sums)
        inverse = float(self._scale[groups].sum() / n)
        return GroupMeans(n, total, total / n, nonzero, normalized, squares, logs, log_squares, inverse)


def overdispersion(means: tuple[GroupMeans, GroupMeans]) -> np.ndarray:
    """Overdispersion phi of each gene within two groups, by moments, (n_genes,).

    The variance of a count per 10,000 is w m + phi m^2, with w the mean of 10,000 over the cells' totals: phi is the
    excess of the variance over that of Poisson counts, pooled over both groups, over the squared mean.
    """
    a, b = means
    squared = a.n_cells * a.normalized**2 + b.n_cells * b.normalized**2
    return np.maximum(a.excess() + b.excess(), 0) / np.maximum(squared, np.finfo(float).tiny)


def standardised_difference(
    expected: tuple[np.ndarray, np.ndarray], means: tuple[GroupMeans, GroupMeans]
) -> np.ndarray:
    r"""Difference of two groups' expected means in units of what counting leaves uncertain, (n_genes,).

        z = (m_1 - m_2) / sqrt(v_1 + v_2),   v_k = (w_k m_k + phi m_k^2) / n_k

    with m_k the expected means, n_k cells, w_k and phi as in :func:`overdispersion`. A gene needs many counts or many
    cells to get far from zero, however large its fold change.

    Parameters
    ----------
    expected
        Mean counts per 10,000 in the two groups, of the model.
    means
        What was counted there.
    """
    phi = overdispersion(means)
    variance = sum((k.inverse_total * m + phi * m**2) / k.n_cells for k, m in zip(means, expected, strict=True))
    return (expected[0] - expected[1]) / np.sqrt(np.maximum(variance, np.finfo(float).tiny))


def welch_t(means: tuple[GroupMeans, GroupMeans]) -> np.ndarray:
    """Welch's t of log(1 + count per 10,000) between two groups of cells, (n_genes,).

    A group of one or two cells does not tell its variance, which is then taken as no smaller than the other's.
    """
    a, b = means
    variances = [np.maximum((k.log_squares - k.logs**2) * k.n_cells / max(k.n_cells - 1, 1), 0) for k in means]
    largest = np.maximum(*variances)
    squared = np.zeros_like(largest)
    for k, variance in zip(means, variances, strict=True):
        own = largest if k.n_cells < FEW else variance
        squared += np.maximum(own, LEAST_VARIANCE) / k.n_cells
    return (a.logs - b.logs) / np.sqrt(squared)
