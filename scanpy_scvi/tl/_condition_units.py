"""Which cells of which donors are compared: a column each of conditions, donors and groups, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from .. import _logging
from ..posterior.donors import Design
from ..store.checks import listed
from ..store.covariates import group_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from anndata import AnnData

DesignName = Literal["auto", "paired", "unpaired"]
EVERY_CELL = "all"
"""Name of the one group where there is no `groupby`."""
MIN_DONORS = 2


@dataclass(frozen=True)
class Unit:
    """Cells of one donor in one condition and group."""

    donor: str
    condition: str
    rows: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """One group in one condition and the reference."""

    group: str
    condition: str
    reference: str
    units: list[Unit]
    design: Design

    @property
    def n_donors(self) -> tuple[int, int]:
        """Donors in the condition and in the reference."""
        return len(self.design.first), len(self.design.second)

    def rows(self, side: np.ndarray) -> np.ndarray:
        """Cells of some units."""
        return np.concatenate([self.units[i].rows for i in side])


class Columns:
    """Conditions, donors and groups of the cells."""

    def __init__(
        self,
        adata: AnnData,
        condition_key: str,
        *,
        groupby: str | None,
        donor_key: str,
        reference: str,
        groups: Iterable[str] | str,
    ) -> None:
        self.key = condition_key
        self.condition, self.conditions = group_names(adata, condition_key, "condition_key")
        self.donor, self.donors = group_names(adata, donor_key, "donor_key")
        self.reference = str(reference)
        if self.reference not in self.conditions:
            msg = (
                f"`adata.obs[{condition_key!r}]` has no condition {self.reference!r}; it has {listed(self.conditions)}."
            )
            raise KeyError(msg)
        if len(self.conditions) < 2:
            msg = f"`adata.obs[{condition_key!r}]` has the condition {self.reference!r} alone, so nothing is compared."
            raise ValueError(msg)
        if groupby is None:
            self.group, self.groups = np.zeros(adata.n_obs, np.int64), [EVERY_CELL]
        else:
            self.group, self.groups = group_names(adata, groupby, "groupby")
        self.every_group = isinstance(groups, str) and groups == "all"
        self.asked = self._asked(groupby, groups)
        # cells by name, so that what is drawn does not depend on their order
        self.order = np.argsort(adata.obs_names.to_numpy().astype(str), kind="stable")

    def _asked(self, groupby: str | None, groups: Iterable[str] | str) -> list[str]:
        if self.every_group:
            return self.groups
        named = [groups] if isinstance(groups, str) else [str(g) for g in groups]
        unknown = [g for g in named if g not in self.groups]
        if unknown:
            where = f"`adata.obs[{groupby!r}]`" if groupby else "A test without `groupby`"
            msg = f"{where} has no group {listed(unknown)}; it has {listed(self.groups)}."
            raise KeyError(msg)
        if not named:
            msg = '`groups` is empty, but at least one group was expected. Pass names, or "all".'
            raise ValueError(msg)
        return list(dict.fromkeys(named))

    def units(self, group: str, condition: str, min_cells: int) -> list[Unit]:
        """Units of a group in one condition, those with enough cells, donors in the order of their names."""
        inside = (self.group == self.groups.index(group)) & (self.condition == self.conditions.index(condition))
        rows = self.order[inside[self.order] & (self.donor[self.order] >= 0)]
        of_donor = {name: rows[self.donor[rows] == code] for code, name in enumerate(self.donors)}
        return [Unit(name, condition, of_donor[name]) for name in sorted(of_donor) if len(of_donor[name]) >= min_cells]

    def comparisons(self, design: DesignName, min_cells: int) -> Iterator[Comparison]:
        """All comparisons asked for that have donors enough; an error or, among all groups, a warning where not."""
        left_out, found = [], 0
        for group in self.asked:
            for condition in self.conditions:
                if condition == self.reference:
                    continue
                first, second = (self.units(group, c, min_cells) for c in (condition, self.reference))
                try:
                    comparison = _compare(group, first, second, condition, self.reference, design, min_cells)
                except TooFewDonorsError as error:
                    if not self.every_group or len(self.groups) == 1:
                        raise
                    left_out.append((group, condition, error))
                    continue
                found += 1
                yield comparison
        if not found:
            raise left_out[0][2]
        if left_out:
            names = listed([f"{group} in {condition}" for group, condition, _ in left_out])
            _logging.warning(f"not tested, as fewer than {MIN_DONORS} donors have {min_cells} cells there: {names}")


class UntestableError(ValueError):
    """A comparison cannot be made, though others may."""


class TooFewDonorsError(UntestableError):
    """A comparison has too few donors."""


def _compare(
    group: str,
    first: list[Unit],
    second: list[Unit],
    condition: str,
    reference: str,
    design: DesignName,
    min_cells: int,
) -> Comparison:
    """Tell the design from the donors."""
    on_both = {u.donor for u in first} & {u.donor for u in second}
    n_all = len({u.donor for u in first} | {u.donor for u in second})
    paired = design == "paired" or (design == "auto" and len(on_both) >= MIN_DONORS and 2 * len(on_both) >= n_all)
    if paired:
        first, second = ([u for u in side if u.donor in on_both] for side in (first, second))
    if min(len(first), len(second)) < MIN_DONORS:
        found = f"{len(on_both)}" if paired else f"{len(first)} and {len(second)}"
        msg = (
            f"Of the group {group!r}, {found} donors have at least {min_cells} cells in {condition!r} and "
            f"{reference!r}, but {MIN_DONORS} {'with both' if paired else 'a side'} are needed to see how "
            "donors differ. Add donors, lower `min_cells`, or leave the group out."
        )
        raise TooFewDonorsError(msg)
    sides = np.arange(len(first)), len(first) + np.arange(len(second))
    return Comparison(group, condition, reference, [*first, *second], Design(*sides, paired))
