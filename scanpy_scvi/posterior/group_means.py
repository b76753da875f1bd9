"""Means of the counts over groups of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from ..training.batches import CellTable

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


class GroupSums:
    """Sums over each group, from which means of groups and of all other cells follow without another pass."""

    def __init__(self, table: CellTable, codes: np.ndarray, n_groups: int) -> None:
        """Sum the cells of each code from 0 to `n_groups` - 1; cells with other codes count nowhere."""
        indptr, indices, data = table.counts
        inside = np.flatnonzero((codes >= 0) & (codes < n_groups))
        ones = np.ones(len(inside), np.float64)
        members = sparse.csr_array((ones, (codes[inside], inside)), shape=(n_groups, table.n_cells))
        shape = table.n_cells, table.n_genes
        counts = sparse.csr_array((data, indices, indptr), shape=shape)
        scaled = PER * np.exp(-table.log_total.astype(np.float64))
        self.n_cells = np.bincount(codes[inside], minlength=n_groups)
        self._raw = (members @ counts).toarray()
        self._normalized = (members @ sparse.diags_array(scaled) @ counts).toarray()
        self._nonzero = (members @ sparse.csr_array((data != 0, indices, indptr), shape=shape)).toarray()

    def of(self, groups: list[int]) -> GroupMeans:
        """Means over the cells of some groups together."""
        n = int(self.n_cells[groups].sum())
        total, nonzero, normalized = (a[groups].sum(0) for a in (self._raw, self._nonzero, self._normalized))
        return GroupMeans(n, total, total / n, nonzero / n, normalized / n)
