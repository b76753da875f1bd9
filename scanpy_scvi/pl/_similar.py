"""Orders in which what is alike stands together."""

from __future__ import annotations

import numpy as np
from scipy.cluster import hierarchy

MOST_OPTIMAL = 1000
"""Rows up to which the tree is turned so that neighbours are as alike as can be; the time grows with their square."""


def similar_beside(rows: np.ndarray) -> np.ndarray:
    """Order of the leaves of a tree of the rows (average linkage), turned so that neighbours are alike."""
    if len(rows) < 3:
        return np.arange(len(rows))
    tree = hierarchy.linkage(rows, method="average", optimal_ordering=len(rows) <= MOST_OPTIMAL)
    order: np.ndarray = hierarchy.leaves_list(tree)
    return order
