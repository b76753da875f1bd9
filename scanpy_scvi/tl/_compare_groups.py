"""Groups of cells compared one after another, and the table of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from ..posterior.comparison import Comparison, ComparisonOptions, compare_draws
from ..posterior.effects import expected_fdr, log_odds
from ..posterior.group_draws import GroupDraws
from ..posterior.group_means import PER, GroupMeans, GroupSums, standardised_difference, welch_t
from ..posterior.residuals import add_residuals, residuals, shrink
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
        wanted = names if isinstance(groups, str) and groups == "all" else named
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
    """Compare one group after another; return their tables one below the other.

    Genes of the model that the cells lack are left out.
    """
    present, complete = fitted.present, len(fitted.present) == cells.n_genes
    sums = GroupSums(cells, groupings.codes, len(groupings.names))
    source = GroupDraws(fitted.model, cells, groupings.codes, options, random_state=random_state, device=device)
    tables = []
    for group in groupings.asked:
        sides = groupings.sides(group)
        means = sums.of(sides[0]), sums.of(sides[1])
        with limited_to_useful(int(fitted.params["batch_size"]), fitted.spec):
            drawn = source.paired(*sides)
        if not complete:
            drawn, means = drawn.at(present), (means[0].at(present), means[1].at(present))
        residual = np.zeros(len(present))
        if drawn.expected is not None:
            posterior = shrink(residuals(drawn.expected, means))
            add_residuals(posterior, drawn.draws.first, np.random.default_rng(source.residual_seed(sides[0])))
            residual = posterior.mean / np.log(2)
        with team_of_torch_threads():
            found = compare_draws(drawn.draws, (means[0].raw, means[1].raw), options)
        table = _table(found, means, options, rule, fitted.present_names)
        n1, n2 = drawn.n_effective
        named = {"group": group, "reference": groupings.reference}
        tables.append(table.assign(residual=residual[table.index], n_effective1=n1, n_effective2=n2, **named))
    return pd.concat(tables, ignore_index=True)


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
    expected = PER * effects.scale1.astype(np.float64), PER * effects.scale2.astype(np.float64)
    score = np.where(tested, (standardised_difference(expected, means) + welch_t(means)) / 2, 0.0)
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
            "fdr": fdr,
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
