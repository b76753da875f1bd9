"""Whether predictive intervals of counts hold what they promise."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
MEAN_LIMITS = (0.1, 1.0)
"""Mean counts at which the groups of genes are cut."""
GENE_GROUPS = ("all", "mean below 0.1", "mean 0.1 to 1", "mean above 1")


class Coverage(NamedTuple):
    """Coverage of central predictive intervals, one entry for each group of genes and level."""

    group: list[str]
    n_genes: np.ndarray
    level: np.ndarray
    """Nominal coverage."""
    coverage: np.ndarray
    """Share of counts inside."""


class RankCounter:
    r"""Where each count lies among its replicates, counted over cells and genes.

    With b of K replicates below a count and e equal to it, the probability integral transform is uniform on
    :math:`[b, b + e + 1] / (K + 1)`: ties are broken at random, and the count and its replicates are K + 1 draws, so
    that the transform of a calibrated model is uniform for every K. Coverage takes the expectation over that uniform
    number in place of a draw of it (Czado et al. 2009, Biometrics 65:1254).
    """

    def __init__(self, gene_means: np.ndarray, n_replicates: int) -> None:
        self.k = n_replicates
        self._group = np.digitize(gene_means, MEAN_LIMITS)
        self._counts = np.zeros((len(MEAN_LIMITS) + 1, n_replicates + 1, n_replicates + 1), np.int64)

    def add(self, below: np.ndarray, equal: np.ndarray) -> None:
        """Take in cells x genes, how many replicates are below each count and how many equal to it."""
        side = self.k + 1
        for group, counts in enumerate(self._counts):
            genes = self._group == group
            code = below[:, genes].astype(np.int64) * side + equal[:, genes]
            counts += np.bincount(code.ravel(), minlength=side * side).reshape(side, side)

    def coverage(self) -> Coverage:
        """Share of the transform inside the central interval of each level; groups without genes are left out."""
        below, equal = np.indices(self._counts.shape[1:])
        low, width = below / (self.k + 1), (equal + 1) / (self.k + 1)
        sizes = np.bincount(self._group, minlength=len(self._counts))
        of_group = dict(zip(GENE_GROUPS, [self._counts.sum(0), *self._counts], strict=True))
        n_genes = dict(zip(GENE_GROUPS, [sizes.sum(), *sizes], strict=True))
        rows = []
        for group, counts in of_group.items():
            for level in LEVELS if n_genes[group] else ():
                first, last = (1 - level) / 2, (1 + level) / 2
                inside = np.clip(np.minimum(low + width, last) - np.maximum(low, first), 0, None) / width
                rows.append((group, n_genes[group], level, (counts * inside).sum() / counts.sum()))
        groups, n, levels, shares = zip(*rows, strict=True)
        return Coverage(list(groups), np.array(n), np.array(levels), np.array(shares))
