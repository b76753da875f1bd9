"""Cells whose library is out of line."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .checks import listed
from .finding import Finding, part_of

FEW_COUNTS = 20
"""A cell with fewer counts says next to nothing about its state."""
MAX_DEVIATION = 6.0
"""Largest distance from the batch's median log library, in MADs scaled to a normal's standard deviation."""
MIN_GROUP = 20
"""Batches with fewer cells are judged by the spread of all cells."""
MIN_SPREAD = 0.1
"""Least standard deviation of log libraries that is assumed, so that very even batches have no outliers by chance."""
WIDE_RATIO = 1000.0
"""Ratio of the largest to the smallest library that deserves a note."""


class Libraries(NamedTuple):
    """Libraries (total counts over the modelled genes) of all cells, with those out of line."""

    total: np.ndarray
    far: np.ndarray
    """Whether a cell's log library is more than `MAX_DEVIATION` from its batch's median, (n_cells,)."""
    few: np.ndarray
    """Whether a cell has fewer than `FEW_COUNTS` counts, (n_cells,)."""

    @property
    def ratio(self) -> float:
        """Largest over smallest."""
        return float(self.total.max() / self.total.min())


def judge_libraries(log_total: np.ndarray, batch: np.ndarray) -> Libraries:
    """Compare each cell's log library with its batch's; every cell has counts.

    Parameters
    ----------
    log_total
        Natural log of each cell's total, (n_cells,).
    batch
        Batch code of each cell, (n_cells,).
    """
    log_total = np.asarray(log_total, np.float64)
    deviation = np.empty_like(log_total)
    groups = [np.flatnonzero(batch == b) for b in np.unique(batch)]
    for rows in groups:
        deviation[rows] = log_total[rows] - np.median(log_total[rows])
    pooled = _spread(deviation)
    for rows in groups:
        deviation[rows] /= _spread(deviation[rows]) if len(rows) >= MIN_GROUP else pooled
    total = np.exp(log_total)
    return Libraries(total, np.abs(deviation) > MAX_DEVIATION, total < FEW_COUNTS - 0.5)


def _spread(deviation: np.ndarray) -> float:
    return max(1.4826 * float(np.median(np.abs(deviation))), MIN_SPREAD)


def library_findings(libraries: Libraries, obs_names: np.ndarray, *, masked: bool, with_batches: bool) -> list[Finding]:
    """Put the libraries into words; `masked` if not all genes are modelled, `with_batches` if there are several."""
    total = libraries.total
    genes = " in the modelled genes" if masked else ""
    findings = []
    if libraries.few.any():
        findings.append(_few(libraries, obs_names, genes, masked=masked))
    if (libraries.far & ~libraries.few).any():
        findings.append(_far(libraries, obs_names, genes, whose="their batch's" if with_batches else "the"))
    span = f"libraries of {total.min():,.0f} to {total.max():,.0f} counts{genes} (median {np.median(total):,.0f})"
    if libraries.ratio > WIDE_RATIO:
        message = f"{span}: the largest is {libraries.ratio:,.0f} times the smallest"
        findings.append(Finding("note", "libraries", message))
    return findings or [Finding("ok", "libraries", f"{span}, no cell is out of line")]


def _far(libraries: Libraries, obs_names: np.ndarray, genes: str, *, whose: str) -> Finding:
    total, middle = libraries.total, float(np.median(libraries.total))
    far = np.flatnonzero(libraries.far & ~libraries.few)
    farthest = far[np.argsort(-np.abs(np.log(total[far] / middle)), kind="stable")][:3]
    first = ", ".join(f"{obs_names[i]!r} with {total[i]:,.0f}" for i in farthest)
    message = (
        f"{part_of(len(far), len(total), 'cells')} a library{genes} more than {MAX_DEVIATION:g} MAD from {whose} "
        f"median on the log scale (first: {first}; median {middle:,.0f}): debris, or several cells in one drop? Look "
        "at them, and remove what is no cell, for instance with `sc.pp.filter_cells`."
    )
    return Finding("warning", "libraries", message)


def _few(libraries: Libraries, obs_names: np.ndarray, genes: str, *, masked: bool) -> Finding:
    few = np.flatnonzero(libraries.few)
    names = listed(obs_names[few[np.argsort(libraries.total[few], kind="stable")]], most=3)
    remedy = (
        "Model more genes, or remove them."
        if masked
        else f"Remove them with `sc.pp.filter_cells(adata, min_counts={FEW_COUNTS})`."
    )
    message = (
        f"{part_of(len(few), len(libraries.few), 'cells')} fewer than {FEW_COUNTS} counts{genes} (first: {names}): "
        f"too few to tell a cell's state, so their embedding is mostly the prior. {remedy}"
    )
    return Finding("warning", "libraries", message)
