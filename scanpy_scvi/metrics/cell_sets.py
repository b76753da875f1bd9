"""Sets of cells that are to be compared."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

LEAST_CELLS = 20
"""Cells that a set needs."""


class CellSet(NamedTuple):
    """A set of cells: counts, CSR, and labels."""

    counts: sparse.csr_array
    labels: np.ndarray | None

    def take(self, rows: np.ndarray) -> CellSet:
        """Some of the cells."""
        return CellSet(self.counts[rows], None if self.labels is None else self.labels[rows])


class Profile(NamedTuple):
    """A set of cells as it is compared; arrays are cells x genes, float32."""

    raw: np.ndarray
    log: np.ndarray
    zeros: float
    labels: np.ndarray | None


def draw(sets: list[CellSet], most: int, rng: np.random.Generator) -> list[CellSet]:
    """Equally many cells of the real, the generated and the control set, in random order."""
    if len(sets) == 2:
        real, generated = sets
        order = rng.permutation(real.counts.shape[0])
        half = len(order) // 2
        sets = [real.take(order[:half]), generated, real.take(order[half:])]
    n = min(most, *(cells.counts.shape[0] for cells in sets))
    return [cells.take(rng.permutation(cells.counts.shape[0])[:n]) for cells in sets]


def profile(cells: CellSet, target_sum: float) -> Profile:
    """Scale the counts to one total for every cell."""
    raw = cells.counts.toarray().astype(np.float64)
    zeros = float((raw == 0).mean())
    raw = (raw * (target_sum / raw.sum(1, keepdims=True))).astype(np.float32)
    return Profile(raw, np.log1p(raw), zeros, cells.labels)


def read_cells(counts: Any, labels: Any, name: str) -> CellSet:
    """Check one set, which is called `name` where something is wrong with it."""
    x = sparse.csr_array(counts) if sparse.issparse(counts) else np.asarray(counts)
    if x.ndim != 2 or not np.issubdtype(x.dtype, np.number):
        msg = f"`{name}` must be a matrix of counts, cells x genes; it has the shape {x.shape} and the type {x.dtype}."
        raise ValueError(msg)
    x = sparse.csr_array(x)
    if not (np.isfinite(x.data).all() and (x.data >= 0).all()):
        msg = f"`{name}` must hold counts, but has negative or non-finite values."
        raise ValueError(msg)
    empty = int((np.asarray(x.sum(1)).ravel() == 0).sum())
    if empty:
        msg = f"{empty} cells of `{name}` have no counts over these genes; leave them out."
        raise ValueError(msg)
    if labels is None:
        return CellSet(x, None)
    of_cell = np.asarray(labels).astype(str)
    if of_cell.shape != x.shape[:1]:
        msg = f"`{name}_labels` must have one label for each of the {x.shape[0]} cells; its shape is {of_cell.shape}."
        raise ValueError(msg)
    return CellSet(x, of_cell)


def check_together(sets: list[CellSet]) -> None:
    """Check that the real, the generated and perhaps the control set go together."""
    n_genes = [cells.counts.shape[1] for cells in sets]
    if len(set(n_genes)) > 1:
        msg = f"All sets must have the same genes, but they have {', '.join(map(str, n_genes))} of them."
        raise ValueError(msg)
    if len({cells.labels is None for cells in sets}) > 1:
        msg = "Labels were given for some of the sets; give them for all, or for none."
        raise ValueError(msg)
    least = [2 * LEAST_CELLS if len(sets) == 2 else LEAST_CELLS, *[LEAST_CELLS] * (len(sets) - 1)]
    for cells, needed, name in zip(sets, least, ("real", "generated", "control"), strict=False):
        if cells.counts.shape[0] < needed:
            msg = f"`{name}` has {cells.counts.shape[0]} cells, but at least {needed} are needed."
            raise ValueError(msg)
