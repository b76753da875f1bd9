"""Draws of the proportions of groups of cells, paired with draws of what the groups are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..numerics.draws import row_moments
from ..training.random import torch_seed
from .effects import PairedDraws
from .group_means import PER
from .importance import MOST_CELLS, reweight
from .scales import Draws, draw_scales, pair_draws, plan_draws

if TYPE_CHECKING:
    import torch

    from ..modules.vae import VAE
    from ..training.batches import CellTable
    from .comparison import ComparisonOptions

OWN = 1000
"""Draws that are also decoded in their cells' own batches."""
LEAST_SHARE = 0.5
"""Share of the cells outside a group from which a pool over all cells serves as its rest."""


class Expected(NamedTuple):
    """Mean of the proportions per 10,000 of a group's cells, each in its own batch; both (n_genes,)."""

    mean: np.ndarray
    variance: np.ndarray
    """Of the mean, since it is over draws."""

    @classmethod
    def of(cls, scales: np.ndarray, chosen: np.ndarray | None = None, *, worth: float = 1.0) -> Expected:
        """Mean over the chosen columns of draws, (n_genes, n_draws); by default the first thousand.

        `worth` is what a draw is worth beside an independent one.
        """
        columns = np.arange(scales.shape[1])[:OWN] if chosen is None else np.flatnonzero(chosen)
        mean, variance = row_moments(scales, columns)
        return cls(PER * mean, PER**2 * variance / (worth * len(columns)))


class Sides(NamedTuple):
    """Draws of two groups of cells."""

    draws: PairedDraws
    n_effective: tuple[float, float]
    """How many draws of equal weight those of either side are worth."""
    expected: tuple[Expected, Expected] | None
    """What the model expects to be counted in the two groups; None where nobody asks."""

    def at(self, genes: np.ndarray) -> Sides:
        """The same for some of the genes, by position."""
        first, second, partner = self.draws
        expected = None
        if self.expected is not None:
            one, two = (Expected(e.mean[genes], e.variance[genes]) for e in self.expected)
            expected = one, two
        return Sides(PairedDraws(first[genes], second[genes], partner), self.n_effective, expected)


class _Drawn(NamedTuple):
    draws: Draws
    scales: np.ndarray
    own: np.ndarray | None
    """Scales of the first draws, each in its cell's own batch."""
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

    def paired(self, group: list[int], others: list[int]) -> Sides:
        """Draws of the cells with the codes `group`, each with a partner among those with the codes `others`."""
        rows, rest = (np.flatnonzero(np.isin(self.codes, side)) for side in (group, others))
        first = self._draw(rows, [1, *self._named(group)], memory=0)
        everything = np.flatnonzero(self.codes >= 0)
        is_rest = len(rest) == len(everything) - len(rows) and len(rest) >= LEAST_SHARE * len(everything)
        if is_rest and not self.options.weighted:
            if self._pool is None:
                self._pool = self._draw(everything, [2], memory=None)
            allowed = ~np.isin(self.codes[self._pool.draws.rows], group)
            if _serves(first.draws, self._pool.draws, allowed):
                return _sides(first, self._pool, allowed)
        return _sides(first, self._draw(rest, [3, *self._named(group)], memory=1))

    @staticmethod
    def _named(group: list[int]) -> list[int]:
        """Part of a seed that no other group has; a zero at the end of a seed would count for nothing."""
        return [code + 1 for code in group]

    def residual_seed(self, group: list[int]) -> np.random.SeedSequence:
        """Seed of what is added to the draws of a group."""
        return np.random.SeedSequence([self.random_state, 4, *self._named(group)])

    def _all_in(self, batches: np.ndarray) -> bool:
        """Whether there is one batch, and every cell is of it."""
        return len(batches) == 1 and bool((self.cells.batch == batches[0]).all())

    def _draw(self, rows: np.ndarray, key: list[int], memory: int | None) -> _Drawn:
        seed = np.random.SeedSequence([self.random_state, *key])
        rng = np.random.default_rng(seed)
        decoding_seed = torch_seed(seed)
        n, batches = self.options.n_draws, self.options.batches
        if self.options.weighted:
            some = rows if len(rows) <= MOST_CELLS else rng.choice(rows, MOST_CELLS, replace=False)
            planned = plan_draws(some, n, batches, rng)
            draws, n_effective = reweight(
                self.model, self.cells, planned, random_state=decoding_seed, device=self.device
            )
        else:
            draws, n_effective = plan_draws(rows, n, batches, rng), float(n)

        def decode(draws: Draws, out: np.ndarray | None = None, *, of_counts: bool = False) -> np.ndarray:
            return draw_scales(
                self.model,
                self.cells,
                draws,
                random_state=decoding_seed,
                device=self.device,
                out=out,
                of_counts=of_counts,
            )

        scales = decode(draws, None if memory is None else self._scales[memory])
        if memory is not None:
            self._scales[memory] = scales
        own: np.ndarray | None = scales
        if not self.options.residuals:
            own = None
        elif self.model.likelihood.inflates_zeros or (batches is not None and not self._all_in(batches)):
            own = decode(draws.first(OWN)._replace(batch=None), of_counts=True)
        return _Drawn(draws, scales, own, n_effective)


def _sides(first: _Drawn, second: _Drawn, allowed: np.ndarray | None = None) -> Sides:
    """Pair the draws; of the second, only those allowed."""
    if allowed is None:
        partner, n = np.arange(len(first.draws.rows)), second.n_effective
    else:
        partner, n = pair_draws(first.draws, second.draws, allowed), float(allowed.sum())
    expected = None
    if first.own is not None and second.own is not None:
        chosen = None if allowed is None else allowed[: second.own.shape[1]]
        worth = [drawn.n_effective / len(drawn.draws.rows) for drawn in (first, second)]
        expected = Expected.of(first.own, worth=worth[0]), Expected.of(second.own, chosen, worth=worth[1])
    return Sides(PairedDraws(first.scales, second.scales, partner), (first.n_effective, n), expected)


def _serves(first: Draws, second: Draws, allowed: np.ndarray) -> bool:
    """Whether the pool has enough allowed draws in every batch."""
    if first.batch is None or second.batch is None:
        return bool(allowed.mean() >= LEAST_SHARE / 2)
    n, n_allowed = np.bincount(second.batch), np.bincount(second.batch[allowed], minlength=second.batch.max() + 1)
    return bool((n_allowed >= LEAST_SHARE / 2 * n).all())
