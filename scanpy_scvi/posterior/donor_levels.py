"""Level of each gene in each donor: what was counted, and what the model believes.

A unit is the cells of one donor in one condition. With x_jg the counts of unit j, L_j their total, and R_jg the mean of
rho over draws of the unit's cells, decoded in all batches alike,

    observed:  y_jg = log2(x_jg / L_j + c) - b_jg,    b_jg the bias of the logarithm of a few counts
    denoised:  y_jg = log2(R_jg + c)

The model shares strength, and so errors, between cells and donors: the donors' spread in the second says little about
them, and their mean is drawn towards the others.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import poisson

from ..training.random import torch_seed
from .scales import draw_scales, plan_draws

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from ..modules.vae import VAE
    from ..training.batches import CellTable

PRIOR_COUNT = 0.5
"""Counts that c stands for in a unit of average size."""
LEAST_MEAN, LARGE_MEAN, N_MEANS = 1e-3, 100.0, 200
"""Means of counts between which a bias is read off a table, and the size of that."""
LEAST_COUNT = 10
"""Mean count of a unit from which more than the counting decides what is seen of a gene."""
LEAST_GENES = 10
"""Genes needed to find the typical gene."""


def draw_units(
    model: VAE,
    table: CellTable,
    units: Iterable[tuple[np.ndarray, np.random.SeedSequence]],
    *,
    n_draws: int,
    batches: np.ndarray | None,
    device: torch.device,
) -> np.ndarray:
    """Mean proportions R over `n_draws` draws of each unit, whatever its cells, (n_units, n_genes).

    Parameters
    ----------
    model
        A fitted model.
    table
        The cells.
    units
        Rows of each unit's cells, and its seed.
    n_draws
        Draws for each unit.
    batches
        Batches to decode in, in equal shares; None for each cell's own.
    device
        Where to compute.
    """
    means: list[np.ndarray] = []
    memory: np.ndarray | None = None
    for rows, seed in units:
        draws = plan_draws(rows, n_draws, batches, np.random.default_rng(seed))
        memory = draw_scales(model, table, draws, random_state=torch_seed(seed), device=device, out=memory)
        means.append(memory.mean(1, dtype=np.float64))
    return np.array(means)


def pseudocount(totals: np.ndarray) -> float:
    """c for units with these total counts: half a count where the total is average."""
    return PRIOR_COUNT / float(totals.mean())


def observed_levels(counts: np.ndarray, c: float) -> np.ndarray:
    """log2(x / L + c) less its bias, (n_units, n_genes).

    The mean of the logarithm of a small count depends on the depth: with few counts it lies further from the logarithm
    of the mean. Where one condition has more cells, all rare genes would seem to change. The bias is that of Poisson
    counts of a gene with the same share everywhere, the mean share over units.
    """
    totals = counts.sum(1)
    share = (counts / totals[:, None]).mean(0)
    biases = np.stack([log_bias(share * total, c * total) for total in totals])
    return np.log2(counts / totals[:, None] + c) - biases


def log_bias(mean: np.ndarray, added: float) -> np.ndarray:
    """E log2(x + a) - log2(E x + a) of Poisson counts x with these means; large means: the first term of a series."""
    x, grid, pmf = _poisson_table()
    exact = pmf @ np.log2(x + added) - np.log2(grid + added)
    between = np.interp(np.log(np.maximum(mean, LEAST_MEAN)), np.log(grid), exact)
    between = np.where(mean < LEAST_MEAN, exact[0] * mean / LEAST_MEAN, between)
    return np.where(mean < LARGE_MEAN, between, -mean / (2 * np.log(2) * (mean + added) ** 2))


@cache
def _poisson_table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, means, and the probability of each count at each mean."""
    x = np.arange(LARGE_MEAN + 10 * np.sqrt(LARGE_MEAN))
    grid = np.geomspace(LEAST_MEAN, LARGE_MEAN, N_MEANS)
    return x, grid, poisson.pmf(x, grid[:, None])


def well_seen(counts: np.ndarray) -> np.ndarray:
    """Genes with a mean of at least ten counts in a unit, (n_genes,)."""
    return counts.mean(0) >= LEAST_COUNT


def relative_to_typical(levels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Subtract from each unit the median over genes of its distance from the mean unit.

    Proportions add up to one, so where some genes rise all others fall; the typical gene is taken for the fixed point.
    Genes count with a mean of at least ten counts in a unit; where there are fewer than ten of them, nothing is done.
    In logarithms, these are the size factors of Anders and Huber 2010, Genome Biol 11:R106.
    """
    seen = well_seen(counts)
    if seen.sum() < LEAST_GENES:
        return levels
    distance = levels[:, seen] - levels[:, seen].mean(0)
    return levels - np.median(distance, axis=1, keepdims=True)
