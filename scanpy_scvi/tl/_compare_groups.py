"""Groups of cells compared one after another, and the table of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from ..posterior.comparison import Comparison, ComparisonOptions, compare_draws
from ..posterior.effects import PairedDraws, expected_fdr, log_odds
from ..posterior.group_means import GroupMeans, GroupSums, standardised_difference
from ..posterior.scales import Draws, draw_scales, pair_draws, plan_draws
from ..store.checks import listed
from ..store.covariates import group_names
from ..training.threads import limited_to_useful, team_of_torch_threads

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch
    from anndata import AnnData

    from ..store.load import Fitted
    from ..training.batches import CellTable

REST = "rest"
"""Name of all other cells as a reference, as in scanpy."""
MIN_GROUPS = 2
LEAST_SHARE = 0.5
"""Share of the cells outside a group from which a pool over all cells serves as its rest."""


class CallRule(NamedTuple):
    """Which genes are called."""

    fdr_target: float
    min_counts: int


class Groupings(NamedTuple):
    """Which cells are compared with which."""

    codes: np.ndarray
    """Group of each cell, -1 for none."""
    names: list[str]
    """Names of all groups."""
    asked: list[str]
    """Groups to compare with the reference."""
    reference: str

    @classmethod
    def of(cls, adata: AnnData, groupby: str, groups: Iterable[str] | str, reference: str) -> Groupings:
        """Read a column; raise where there is nothing to compare."""
        codes, names = group_names(adata, groupby, "groupby")
        named = [groups] if isinstance(groups, str) else [str(g) for g in groups]
        wanted = names if groups == "all" else named
        reference = str(reference)
        if reference == REST and REST in names:
            msg = (
                f"`adata.obs[{groupby!r}]` has a group {REST!r}, which as a reference means all other cells. Rename it."
            )
            raise ValueError(msg)
        unknown = [g for g in wanted if g not in names] + [r for r in [reference] if r not in [*names, REST]]
        if unknown:
            msg = f"`adata.obs[{groupby!r}]` has no group {listed(unknown)}; it has {listed(names)}."
            raise KeyError(msg)
        asked = [g for g in dict.fromkeys(wanted) if g != reference]
        if len(names) < MIN_GROUPS:
            msg = f"`adata.obs[{groupby!r}]` has the groups {listed(names)}, but two to compare are needed."
            raise ValueError(msg)
        if not asked:
            msg = f"`groups` is {groups!r}, but at least one group other than the reference {reference!r} was expected."
            raise ValueError(msg)
        return cls(codes, names, asked, reference)

    def sides(self, group: str) -> tuple[list[int], list[int]]:
        """Codes of a group and of what it is compared with."""
        one = self.names.index(group)
        if self.reference == REST:
            return [one], [i for i in range(len(self.names)) if i != one]
        return [one], [self.names.index(self.reference)]


def compare_groups(
    fitted: Fitted,
    cells: CellTable,
    groupings: Groupings,
    options: ComparisonOptions,
    rule: CallRule,
    *,
    random_state: int,
    device: torch.device,
) -> pd.DataFrame:
    """Compare one group after another; return their tables one below the other."""
    sums = GroupSums(cells, groupings.codes, len(groupings.names))
    source = _Source(fitted, cells, groupings, options, random_state, device)
    tables = []
    for group in groupings.asked:
        sides = groupings.sides(group)
        means = sums.of(sides[0]), sums.of(sides[1])
        with limited_to_useful(int(fitted.params["batch_size"]), fitted.spec):
            draws = source.paired(*sides)
        with team_of_torch_threads():
            found = compare_draws(draws, (means[0].raw, means[1].raw), options)
        table = _table(found, means, options, rule, fitted.var_names)
        tables.append(table.assign(group=group, reference=groupings.reference))
    return pd.concat(tables, ignore_index=True)


class _Source:
    """Draws of groups of cells.

    What many groups are compared with, all other cells, is drawn and decoded once: a pool over all cells, of which a
    group leaves out its own. Memory: two sets of draws, 8 bytes x draws x genes, however many cells or groups; three
    where one group has more than half of the cells, since its rest is then drawn by itself.
    """

    def __init__(
        self,
        fitted: Fitted,
        cells: CellTable,
        groupings: Groupings,
        options: ComparisonOptions,
        random_state: int,
        device: torch.device,
    ) -> None:
        self.fitted = fitted
        self.cells = cells
        self.codes = groupings.codes
        self.options = options
        self.random_state = random_state
        self.device = device
        self._pool: tuple[Draws, np.ndarray] | None = None
        self._scales: list[np.ndarray | None] = [None, None]
        """Memory for the draws of a group and of its reference."""

    def paired(self, group: list[int], others: list[int]) -> PairedDraws:
        """Draws of the cells with the codes `group`, each with a partner among those with the codes `others`."""
        rows, rest = (np.flatnonzero(np.isin(self.codes, side)) for side in (group, others))
        first, scales1 = self._draw(rows, [0, *group], memory=0)
        everything = np.flatnonzero(self.codes >= 0)
        if len(rest) == len(everything) - len(rows) and len(rest) >= LEAST_SHARE * len(everything):
            if self._pool is None:
                self._pool = self._draw(everything, [1], memory=None)
            second, scales2 = self._pool
            allowed = ~np.isin(self.codes[second.rows], group)
            if _serves(first, second, allowed):
                return PairedDraws(scales1, scales2, pair_draws(first, second, allowed))
        _, scales2 = self._draw(rest, [2, *group], memory=1)
        return PairedDraws.one_to_one(scales1, scales2)

    def _draw(self, rows: np.ndarray, key: list[int], memory: int | None) -> tuple[Draws, np.ndarray]:
        seed = np.random.SeedSequence([self.random_state, *key])
        draws = plan_draws(rows, self.options.n_draws, self.options.batches, np.random.default_rng(seed))
        torch_seed = int(seed.generate_state(1, np.uint64)[0] >> 1)
        scales = draw_scales(
            self.fitted.model,
            self.cells,
            draws,
            random_state=torch_seed,
            device=self.device,
            out=None if memory is None else self._scales[memory],
        )
        if memory is not None:
            self._scales[memory] = scales
        return draws, scales


def _serves(first: Draws, second: Draws, allowed: np.ndarray) -> bool:
    """Whether the pool has enough allowed draws in every batch."""
    if first.batch is None or second.batch is None:
        return bool(allowed.mean() >= LEAST_SHARE / 2)
    n, n_allowed = np.bincount(second.batch), np.bincount(second.batch[allowed], minlength=second.batch.max() + 1)
    return bool((n_allowed >= LEAST_SHARE / 2 * n).all())


def _table(
    found: Comparison,
    means: tuple[GroupMeans, GroupMeans],
    options: ComparisonOptions,
    rule: CallRule,
    genes: tuple[str, ...],
) -> pd.DataFrame:
    """Columns of the full table, best genes first."""
    effects, n = found.effects, options.n_draws
    tested = means[0].total + means[1].total >= rule.min_counts
    proba = np.where(tested, found.differs, 0.0)
    fdr = expected_fdr(proba)
    called = tested & (fdr <= rule.fdr_target)
    in_parts = [tested & (expected_fdr(np.where(tested, p, 0.0)) <= rule.fdr_target) for p in found.differs_in_parts]
    score = np.where(tested, standardised_difference((effects.scale1, effects.scale2), means), 0.0)
    least = 1 / (n + 1)  # as far as so many draws can tell
    table = pd.DataFrame(
        {
            "names": list(genes),
            "scores": score.astype(np.float32),
            "proba_de": proba,
            "proba_not_de": np.clip(1 - proba, least, 1),
            "proba_up": effects.p_up,
            "proba_down": effects.p_down,
            "bayes_factor": log_odds(proba),
            "fdr": np.clip(fdr, least, 1),
            "is_de": called,
            "stability": np.mean([part == called for part in in_parts], axis=0).astype(np.float32),
            "lfc_mean": effects.mean,
            "lfc_median": effects.median,
            "lfc_std": effects.std,
            "lfc_low": effects.low,
            "lfc_high": effects.high,
            "scale1": effects.scale1,
            "scale2": effects.scale2,
            **{
                f"{name}{i}": getattr(mean, name).astype(np.float32)
                for name in ("raw", "normalized", "nonzero")
                for i, mean in enumerate(means, 1)
            },
            "n_cells1": means[0].n_cells,
            "n_cells2": means[1].n_cells,
            "delta": found.delta,
            "pseudocount": found.pseudocount,
        }
    )
    return table.iloc[np.lexsort((-effects.mean, -score))]
