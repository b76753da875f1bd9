"""Are two sets of cells alike? A classifier, kernels and neighbourhoods give their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from .neighbours import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

TESTED = 0.3
"""Share of the cells that a classifier is judged by."""
WIDTHS = (0.5, 1.0, 2.0)
"""Widths of the kernels, in units of the usual distance between neighbours."""
WIDTH_NEIGHBOURS = 24
PERPLEXITY = 30.0
"""Neighbours that a cell's neighbourhood holds in effect; three times as many are looked for."""
CHUNK = 1024


def forest_auc(first: np.ndarray, second: np.ndarray, *, n_trees: int, random_state: int) -> float:
    """Area under the ROC curve with which a random forest tells two sets of points apart; 0.5 where it cannot.

    It learns from 70 % of the points and is judged by the others. A value somewhat below 0.5 is chance as well.
    """
    x, y = np.concatenate([first, second]), np.repeat([0, 1], [len(first), len(second)])
    learn, test, y_learn, y_test = train_test_split(x, y, test_size=TESTED, stratify=y, random_state=random_state)
    forest = RandomForestClassifier(n_trees, random_state=random_state).fit(learn, y_learn)
    return float(roc_auc_score(y_test, forest.predict_proba(test)[:, 1]))


def usual_width(points: np.ndarray) -> float:
    """Median over points of the mean distance to the 24 nearest others; 1 where all lie in one place."""
    distances = nearest(points, n_neighbors=WIDTH_NEIGHBOURS).distances
    width = float(np.median(distances.mean(1)))
    return width if width > 0 else 1.0


def mmd(first: np.ndarray, second: np.ndarray, widths: Sequence[float]) -> float:
    r"""Unbiased estimate of the squared maximum mean discrepancy between the distributions of two sets of points.

    .. math::

        \frac{1}{m(m-1)} \sum_{i \ne j} k(x_i, x_j) + \frac{1}{n(n-1)} \sum_{i \ne j} k(y_i, y_j)
        - \frac{2}{mn} \sum_{i,j} k(x_i, y_j)

    (Gretton et al. 2012, lemma 6) with k the mean of Gaussian kernels exp(-d^2 / 2w^2) of the given widths. Its mean
    is 0 where the distributions are the same, so that it may fall below.
    """
    m, n = len(first), len(second)
    within = (_kernel_sum(x, x, widths) - len(x) for x in (first, second))  # k(x, x) = 1
    a, b = (total / (size * (size - 1)) for total, size in zip(within, (m, n), strict=True))
    return a + b - 2 * _kernel_sum(first, second, widths) / (m * n)


def _kernel_sum(first: np.ndarray, second: np.ndarray, widths: Sequence[float]) -> float:
    """Sum of the kernel over all pairs, some rows at a time."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    norms, total = (second**2).sum(1), 0.0
    for start in range(0, len(first), CHUNK):
        x = first[start : start + CHUNK]
        squared = np.maximum((x**2).sum(1)[:, None] + norms - 2 * x @ second.T, 0)
        total += sum(float(np.exp(-squared / (2 * w**2)).sum()) for w in widths) / len(widths)
    return total


def lisi(points: np.ndarray, codes: np.ndarray) -> np.ndarray:
    r"""Local inverse Simpson index of each point, from 1 to the number of codes, (n,).

    Of the point's neighbours, itself left out, it is :math:`1 / \sum_b p_b^2`, with :math:`p_b` the weight of those of
    code b. Weights are Gaussian in the distance, and as narrow as makes exp(entropy) equal to 30 (Korsunsky et al.
    2019): the number of sets of which one would meet a cell soon, where cells are drawn from the neighbourhood.
    """
    n_neighbors = min(int(3 * PERPLEXITY), len(points) - 1)
    found = nearest(points, n_neighbors=n_neighbors)
    weights = _weights(found.distances.astype(np.float64) ** 2, min(PERPLEXITY, n_neighbors / 3))
    shares = [np.where(codes[found.indices] == code, weights, 0).sum(1) for code in np.unique(codes)]
    return 1 / (np.stack(shares) ** 2).sum(0)


def _weights(squared: np.ndarray, perplexity: float) -> np.ndarray:
    """Gaussian weights of neighbours, rows that sum to 1, with precisions found by bisection of their logarithm."""
    squared = squared - squared[:, :1]
    scale = squared.mean(1, keepdims=True)
    squared = np.divide(squared, scale, out=np.zeros_like(squared), where=scale > 0)
    low, high = np.full((len(squared), 1), -20.0), np.full((len(squared), 1), 20.0)
    for _ in range(50):
        middle = (low + high) / 2
        weights = np.exp(-squared * np.exp(middle))
        total = weights.sum(1, keepdims=True)
        entropy = np.log(total) + np.exp(middle) * (weights * squared).sum(1, keepdims=True) / total
        wide = entropy > np.log(perplexity)
        low, high = np.where(wide, middle, low), np.where(wide, high, middle)
    return weights / total
