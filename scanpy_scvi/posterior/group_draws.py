"""Draws of the proportions of groups of cells, paired with draws of what the groups are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .effects import PairedDraws
from .importance import MOST_CELLS, reweight
from .scales import Draws, draw_scales, pair_draws, plan_draws

if TYPE_CHECKING:
    import torch

    from ..modules.vae import VAE
    from ..training.batches import CellTable
    from .comparison import ComparisonOptions

LEAST_SHARE = 0.5
"""Share of the cells outside a group from which a pool over all cells serves as its rest."""


class _Drawn(NamedTuple):
    draws: Draws
    scales: np.ndarray
    n_effective: float


class GroupDraws:
    """Draws of groups of cells.

    What many groups are compared with, all other cells, is drawn and decoded once: a pool over all cells, of which a
    group leaves out its own (not with weighted draws, which belong to one mixture of cells). Memory: two sets of draws,
    8 bytes x draws x genes, however many cells or groups; three where one group has more than half of the cells, since
    its rest is then drawn by itself.
    """

    def __init__(
        self,
        model: VAE,
        cells: CellTable,
        codes: np.ndarray,
        options: ComparisonOptions,
        *,
        random_state: int,
        device: torch.device,
    ) -> None:
        self.model = model
        self.cells = cells
        self.codes = codes
        self.options = options
        self.random_state = random_state
        self.device = device
        self._pool: _Drawn | None = None
        self._scales: list[np.ndarray | None] = [None, None]
        """Memory for the draws of a group and of its reference."""

    def paired(self, group: list[int], others: list[int]) -> tuple[PairedDraws, tuple[float, float]]:
        """Draws of the cells with the codes `group`, each with a partner among those with the codes `others`.

        Returns
        -------
        The draws, and how many draws of equal weight those of either side are worth.
        """
        rows, rest = (np.flatnonzero(np.isin(self.codes, side)) for side in (group, others))
        first = self._draw(rows, [0, *group], memory=0)
        everything = np.flatnonzero(self.codes >= 0)
        is_rest = len(rest) == len(everything) - len(rows) and len(rest) >= LEAST_SHARE * len(everything)
        if is_rest and not self.options.weighted:
            if self._pool is None:
                self._pool = self._draw(everything, [1], memory=None)
            second = self._pool
            allowed = ~np.isin(self.codes[second.draws.rows], group)
            if _serves(first.draws, second.draws, allowed):
                partner = pair_draws(first.draws, second.draws, allowed)
                return PairedDraws(first.scales, second.scales, partner), (first.n_effective, float(allowed.sum()))
        second = self._draw(rest, [2, *group], memory=1)
        return PairedDraws.one_to_one(first.scales, second.scales), (first.n_effective, second.n_effective)

    def _draw(self, rows: np.ndarray, key: list[int], memory: int | None) -> _Drawn:
        seed = np.random.SeedSequence([self.random_state, *key])
        rng = np.random.default_rng(seed)
        torch_seed = int(seed.generate_state(1, np.uint64)[0] >> 1)
        n, batches = self.options.n_draws, self.options.batches
        if self.options.weighted:
            some = rows if len(rows) <= MOST_CELLS else rng.choice(rows, MOST_CELLS, replace=False)
            planned = plan_draws(some, n, batches, rng)
            draws, n_effective = reweight(self.model, self.cells, planned, random_state=torch_seed, device=self.device)
        else:
            draws, n_effective = plan_draws(rows, n, batches, rng), float(n)
        scales = draw_scales(
            self.model,
            self.cells,
            draws,
            random_state=torch_seed,
            device=self.device,
            out=None if memory is None else self._scales[memory],
        )
        if memory is not None:
            self._scales[memory] = scales
        return _Drawn(draws, scales, n_effective)


def _serves(first: Draws, second: Draws, allowed: np.ndarray) -> bool:
    """Whether the pool has enough allowed draws in every batch."""
    if first.batch is None or second.batch is None:
        return bool(allowed.mean() >= LEAST_SHARE / 2)
    n, n_allowed = np.bincount(second.batch), np.bincount(second.batch[allowed], minlength=second.batch.max() + 1)
    return bool((n_allowed >= LEAST_SHARE / 2 * n).all())
