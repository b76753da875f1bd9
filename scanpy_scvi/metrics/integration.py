"""How well an embedding keeps labels together and batches mixed."""

from __future__ import annotations

import numpy as np

from .neighbours import nearest

VOTERS = 15
"""Neighbours that vote for a label."""
NEIGHBOURHOOD = 30
"""Neighbours among which batches are to be mixed."""


def label_kept(neighbours: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether the majority of a cell's neighbours has its label, (n_cells,), bool."""
    categories, codes = np.unique(np.asarray(labels).astype(str), return_inverse=True)
    votes = codes[neighbours]
    counts = np.stack([(votes == c).sum(1) for c in range(len(categories))], axis=1)
    return counts.argmax(1) == codes


def same_batch(neighbours: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Share of a cell's neighbours from its own batch, (n_cells,)."""
    codes = np.unique(np.asarray(batch).astype(str), return_inverse=True)[1]
    return (codes[neighbours] == codes[:, None]).mean(1)


def ideal_same_batch(batch: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """(n_cb - 1) / (n_c - 1) for a cell of label c and batch b, (n_cells,)."""
    batch = np.unique(np.asarray(batch).astype(str), return_inverse=True)[1]
    labels = (
        np.zeros(len(batch), int)
        if labels is None
        else np.unique(np.asarray(labels).astype(str), return_inverse=True)[1]
    )
    table = np.zeros((labels.max() + 1, batch.max() + 1))
    np.add.at(table, (labels, batch), 1)
    within = np.maximum(table.sum(1)[labels] - 1, 1)
    return (table[labels, batch] - 1) / within


def label_score(embedding: np.ndarray, labels: np.ndarray, *, n_neighbors: int = VOTERS) -> float:
    """Share of cells whose neighbours' majority vote gives their own label.

    Parameters
    ----------
    embedding
        Coordinates, cells x dimensions.
    labels
        One label per cell.
    n_neighbors
        Number of neighbours that vote; the cell itself does not.

    Returns
    -------
    A share between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.r_[np.zeros((20, 1)), np.ones((20, 1))]
    >>> label_score(x, np.repeat(["a", "b"], 20))
    1.0
    """
    return float(label_kept(nearest(embedding, n_neighbors=n_neighbors).indices, labels).mean())


def batch_mixing(embedding: np.ndarray, batch: np.ndarray, *, n_neighbors: int = NEIGHBOURHOOD) -> float:
    """Mean share of a cell's neighbours that come from its own batch (lower is better mixed).

    Compare it with :func:`ideal_batch_mixing`, not with zero.

    Parameters
    ----------
    embedding
        Coordinates, cells x dimensions.
    batch
        One batch per cell.
    n_neighbors
        Number of neighbours looked at.

    Returns
    -------
    A share between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.r_[np.arange(20.0), 100 + np.arange(20.0)][:, None]
    >>> batch_mixing(x, np.repeat(["a", "b"], 20), n_neighbors=3)
    1.0
    """
    return float(same_batch(nearest(embedding, n_neighbors=n_neighbors).indices, batch).mean())


def ideal_batch_mixing(batch: np.ndarray, labels: np.ndarray | None = None) -> float:
    """Value of :func:`batch_mixing` when batches are perfectly mixed within each label.

    For a cell of label c and batch b it is (n_cb - 1) / (n_c - 1), averaged over cells.

    Parameters
    ----------
    batch
        One batch per cell.
    labels
        One label per cell; without it, mixing is over all cells.

    Returns
    -------
    A share between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> round(ideal_batch_mixing(np.repeat(["a", "b"], 50)), 3)
    0.495
    """
    return float(ideal_same_batch(batch, labels).mean())
