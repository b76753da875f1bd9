"""Conditions compared one after another, over donors, and the table of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from .. import _logging
from ..posterior.donor_levels import (
    draw_units,
    observed_levels,
    pseudocount,
    relative_to_typical,
    well_seen,
)
from ..posterior.donors import Answer, Question, compare_donors
from ..posterior.group_means import GroupMeans, GroupSums
from ..training.threads import limited_to_useful
from ._condition_units import UntestableError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from ..store.load import Fitted
    from ..training.batches import CellTable
    from ._condition_units import Comparison, Unit

LevelName = Literal["observed", "denoised"]


@dataclass(frozen=True)
class LevelOptions:
    """How the level of a gene in a donor is found."""

    level: LevelName
    normalize: bool
    batch_correction: bool
    n_samples: int
    min_counts: int
    random_state: int
    device: torch.device


def compare_conditions(
    fitted: Fitted,
    cells: CellTable,
    comparisons: Iterable[Comparison],
    options: LevelOptions,
    question: Question,
    *,
    skip: bool,
) -> pd.DataFrame:
    """Compare one condition and group after another; return their tables one below the other.

    With `skip`, what cannot be tested is left out with a warning, unless nothing can.
    """
    tables, errors = [], []
    for comparison in comparisons:
        try:
            tables.append(_compare(fitted, cells, _with_batches(fitted, cells, comparison, options), options, question))
        except UntestableError as error:
            if not skip:
                raise
            errors.append(error)
    if not tables:
        raise errors[0]
    for left_out in errors:
        _logging.warning(f"left out: {left_out}")
    return pd.concat(tables, ignore_index=True)


def _with_batches(fitted: Fitted, cells: CellTable, comparison: Comparison, options: LevelOptions) -> Comparison:
    """Add the units' batches to the design, if asked; raise where the batch tells the conditions apart."""
    n = fitted.spec.dims.n_batches
    if n == 1 or not options.batch_correction:
        return comparison
    shares = np.stack([np.bincount(cells.batch[unit.rows], minlength=n) / len(unit.rows) for unit in comparison.units])
    design = replace(comparison.design, shares=shares)
    found = f"In the group {comparison.group!r} the batch of the fit ({fitted.columns.batch_key!r})"
    advice = "Pass `batch_correction=False`, or fit without that `batch_key`."
    if not design.tells:
        msg = (
            f"{found} tells {comparison.condition!r} and {comparison.reference!r} apart, so correcting for it would "
            f"take away what is asked for. {advice}"
        )
        raise UntestableError(msg)
    if design.df < 1:
        msg = f"{found} differs so much between donors that nothing is left to see how donors differ. {advice}"
        raise UntestableError(msg)
    return replace(comparison, design=design)


def _compare(
    fitted: Fitted, cells: CellTable, comparison: Comparison, options: LevelOptions, question: Question
) -> pd.DataFrame:
    units, design = comparison.units, comparison.design
    codes = np.full(cells.n_cells, -1)
    for i, unit in enumerate(units):
        codes[unit.rows] = i
    sums, present = GroupSums(cells, codes, len(units)), fitted.present
    counts = np.stack([sums.of([i]).total[present] for i in range(len(units))])
    tested = counts.sum(0) >= options.min_counts
    if not tested.any():
        msg = (
            f"No gene has {options.min_counts} counts in the group {comparison.group!r} in {comparison.condition!r} "
            f"and {comparison.reference!r}. Lower `min_counts`, or leave the group out."
        )
        raise UntestableError(msg)
    observed, denoised = _levels(fitted, cells, comparison, counts, options)
    answer = compare_donors(
        design.shift(observed if options.level == "observed" else denoised),
        design.variance(observed),  # in either case: the model shares its errors between donors
        design,
        level=observed.mean(0),
        tested=tested,
        well_seen=well_seen(counts),
        question=question,
    )
    means = sums.of(design.first.tolist()).at(present), sums.of(design.second.tolist()).at(present)
    return _table(fitted.present_names, comparison, answer, design.shift(denoised), means)


def _levels(
    fitted: Fitted, cells: CellTable, comparison: Comparison, counts: np.ndarray, options: LevelOptions
) -> tuple[np.ndarray, np.ndarray]:
    """Observed and denoised levels, each (n_units, n_genes), of the genes that the cells have."""
    several = options.batch_correction and fitted.spec.dims.n_batches > 1
    batches = fitted.fitted_batches if several else None
    with limited_to_useful(int(fitted.params["batch_size"]), fitted.spec):
        proportions = draw_units(
            fitted.model,
            cells,
            [(unit.rows, _seed(options.random_state, comparison.group, unit)) for unit in comparison.units],
            n_draws=options.n_samples,
            batches=batches,
            device=options.device,
        )[:, fitted.present]
    c = pseudocount(counts.sum(1))
    levels = observed_levels(counts, c), np.log2(proportions + c)
    if not options.normalize:
        return levels
    observed, denoised = (relative_to_typical(level, counts) for level in levels)
    return observed, denoised


def _seed(random_state: int, group: str, unit: Unit) -> np.random.SeedSequence:
    """Seed of a unit, from its names: no other unit and no order of categories changes it."""
    names = [list(name.encode()) for name in (group, unit.condition, unit.donor)]
    return np.random.SeedSequence([random_state, *(n for name in names for n in (len(name), *name))])


def _table(
    genes: tuple[str, ...],
    comparison: Comparison,
    answer: Answer,
    model_shift: np.ndarray,
    means: tuple[GroupMeans, GroupMeans],
) -> pd.DataFrame:
    """Columns of the table, best genes first."""
    donors = comparison.n_donors
    table = pd.DataFrame(
        {
            "names": list(genes),
            "group": comparison.group,
            "condition": comparison.condition,
            "reference": comparison.reference,
            "lfc": answer.mean,
            "lfc_low": answer.low,
            "lfc_high": answer.high,
            "proba_de": answer.differs,
            "proba_up": answer.p_up,
            "proba_down": answer.p_down,
            "fdr": answer.fdr,
            "is_de": answer.called,
            "lfc_donors": answer.shift,
            "lfc_model": model_shift,
            "donor_sd": answer.donor_sd,
            "standard_error": answer.error,
            "df": answer.df,
            **{
                f"{name}{i}": getattr(mean, name).astype(np.float32)
                for name in ("raw", "normalized", "nonzero")
                for i, mean in enumerate(means, 1)
            },
            "donors1": donors[0],
            "donors2": donors[1],
            "n_cells1": means[0].n_cells,
            "n_cells2": means[1].n_cells,
            "paired": comparison.design.paired,
        }
    )
    return table.iloc[np.lexsort((-np.abs(np.nan_to_num(answer.mean)), -answer.differs))]
