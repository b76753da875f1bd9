"""What a condition does to latent states, as one vector."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

N_BOOTSTRAPS = 50
"""Times that cells are drawn anew where nothing else tells how uncertain a shift is."""


class Sides(NamedTuple):
    """Cells of each type under two conditions, as row numbers; a type without cells has an empty array."""

    source: list[np.ndarray]
    target: list[np.ndarray]

    @classmethod
    def of(cls, types: np.ndarray, n_types: int, source: np.ndarray, target: np.ndarray) -> Sides:
        """Split cells by type, `types` (n_cells,) being -1 for none; `source` and `target` are masks."""
        return cls(*([np.flatnonzero(side & (types == t)) for t in range(n_types)] for side in (source, target)))

    def sizes(self) -> np.ndarray:
        """Cells of each type under both conditions, types x 2."""
        return np.array([[len(s), len(t)] for s, t in zip(self.source, self.target, strict=True)]).reshape(-1, 2)

    def only(self, types: np.ndarray) -> Sides:
        """Some of the types."""
        return Sides([self.source[t] for t in types], [self.target[t] for t in types])


class Shift(NamedTuple):
    """A shift, and other estimates of it that tell how uncertain it is."""

    delta: np.ndarray
    """(n_latent,), float64."""
    replicates: np.ndarray
    """Estimates, (n, n_latent): of each type alone, or from cells that were drawn anew."""
    of_types: bool
    """Which of the two."""


def within_types(z: np.ndarray, sides: Sides, rng: np.random.Generator) -> Shift:
    """Mean over types of the differences of means within them, each type with the same weight.

    Parameters
    ----------
    z
        Latent states, (n_cells, n_latent).
    sides
        Cells; every type has some under both conditions.
    rng
        Draws cells anew where there is one type, which tells nothing of how types differ.
    """
    of_types = np.stack([_difference(z, s, t) for s, t in zip(*sides, strict=True)])
    if len(of_types) > 1:
        return Shift(of_types.mean(0), of_types, of_types=True)
    (source,), (target,) = sides
    drawn = [
        _difference(z, rng.choice(source, len(source)), rng.choice(target, len(target))) for _ in range(N_BOOTSTRAPS)
    ]
    return Shift(of_types[0], np.stack(drawn), of_types=False)


def resampled(z: np.ndarray, sides: Sides, rng: np.random.Generator) -> Shift:
    """Difference of the means of balanced samples, as scGen has it (Lotfollahi et al. 2019, Nat Methods 16:715).

    Under each condition every type that it has is drawn with replacement up to its largest one, and then both samples
    are cut to the same size. Where a type has cells under one condition alone, its own level goes into the difference.
    """
    drawn = np.stack([_balanced_difference(z, sides, rng) for _ in range(1 + N_BOOTSTRAPS)])
    return Shift(drawn[0], drawn[1:], of_types=False)


def _difference(z: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    return z[target].mean(0, dtype=np.float64) - z[source].mean(0, dtype=np.float64)


def _balanced_difference(z: np.ndarray, sides: Sides, rng: np.random.Generator) -> np.ndarray:
    samples = [_balanced(side, rng) for side in sides]
    n = min(map(len, samples))
    source, target = (rng.choice(sample, n, replace=False) for sample in samples)
    return _difference(z, source, target)


def _balanced(groups: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """As many cells of each type as the largest has, with replacement."""
    largest = max(map(len, groups))
    return np.concatenate([rng.choice(group, largest) for group in groups if len(group)])
