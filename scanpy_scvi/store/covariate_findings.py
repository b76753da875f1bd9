"""What is odd about covariates that pass all checks."""

from __future__ import annotations

import numpy as np

from .confounding import COINCIDE, association
from .finding import Finding, part_of
from .outliers import MAX_DEVIATION, judge_libraries

FAR = 20.0
"""Standard deviations from the mean at which a value of a covariate is suspicious."""
MANY_CATEGORIES = 10
"""Cells for each category below which a covariate is hardly one of categories."""


def continuous_findings(key: str, values: np.ndarray, batch: np.ndarray | None, obs_names: np.ndarray) -> list[Finding]:
    """Judge one continuous covariate: values far out, and whether the batch decides it.

    Parameters
    ----------
    key
        Its column.
    values
        Finite values that vary, (n_cells,).
    batch
        Batch codes; None without batches.
    obs_names
        Names of the cells.
    """
    findings = []
    scaled = (values - values.mean()) / values.std()
    worst = int(np.abs(scaled).argmax())
    if abs(scaled[worst]) > FAR:
        message = (
            f"`obs[{key!r}]` reaches {values[worst]:.6g} in cell {obs_names[worst]!r}, {abs(scaled[worst]):.0f} "
            "standard deviations from its mean: such a value can upset the fit. Check it, or pass the logarithm."
        )
        findings.append(Finding("warning", "covariates", message))
    if batch is not None and _decided(scaled, batch):
        message = f"`obs[{key!r}]` is decided by the batch and adds nothing to it: it can go"
        findings.append(Finding("note", "covariates", message))
    return findings or [Finding("ok", "covariates", f"`obs[{key!r}]`: {values.min():.6g} to {values.max():.6g}")]


def _decided(scaled: np.ndarray, batch: np.ndarray) -> bool:
    """Whether a standardised variable hardly varies within batches."""
    sizes = np.bincount(batch)
    means = np.bincount(batch, scaled) / np.maximum(sizes, 1)
    return len(sizes) > 1 and float(((scaled - means[batch]) ** 2).mean()) < 1 - COINCIDE


def categorical_findings(key: str, codes: np.ndarray, n_categories: int, batch: np.ndarray | None) -> list[Finding]:
    """Judge one categorical covariate: too many categories, and whether it coincides with the batch."""
    findings = []
    if n_categories * MANY_CATEGORIES > len(codes):
        message = (
            f"`obs[{key!r}]` has {n_categories} categories for {len(codes)} cells: too many to learn an effect of "
            "each. If it is a number, pass it with `continuous_covariate_keys`."
        )
        findings.append(Finding("warning", "covariates", message))
    elif batch is not None and association(batch, codes).cramers_v >= COINCIDE:
        message = f"`obs[{key!r}]` coincides with the batch and adds little to it: one of the two can go"
        findings.append(Finding("note", "covariates", message))
    return findings or [Finding("ok", "covariates", f"`obs[{key!r}]`: {n_categories} categories")]


def size_factor_findings(
    key: str, log_factor: np.ndarray, batch: np.ndarray | None, obs_names: np.ndarray
) -> list[Finding]:
    """Judge size factors: values far from those of the same batch."""
    far = np.flatnonzero(judge_libraries(log_factor, np.zeros(len(log_factor), int) if batch is None else batch).far)
    factor = np.exp(log_factor)
    if not len(far):
        return [
            Finding("ok", "covariates", f"`obs[{key!r}]`: size factors of {factor.min():.3g} to {factor.max():.3g}")
        ]
    first = ", ".join(f"{obs_names[i]!r} with {factor[i]:.3g}" for i in far[:3])
    message = (
        f"{part_of(len(far), len(factor), 'cells')} a size factor in `obs[{key!r}]` more than {MAX_DEVIATION:g} MAD "
        f"from the median on the log scale (first: {first}; median {np.median(factor):.3g}). Check them, or remove "
        "those cells."
    )
    return [Finding("warning", "covariates", message)]
