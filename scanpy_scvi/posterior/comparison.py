"""Two sets of cells compared by what the model expects of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .effects import Effects, Mode, Ways, delta_by_mixture, mean_change, pseudocount, summarise
from .scales import draw_scales, plan_draws

if TYPE_CHECKING:
    import torch

    from ..modules.vae import VAE
    from ..training.batches import CellTable

PEER_SHARE = 1e-3
"""Part of the pseudocount with which scvi-tools computes the fold changes that it reports."""


@dataclass(frozen=True)
class ComparisonOptions:
    """How two sets of cells are compared."""

    mode: Mode = "change"
    ways: Ways = "three"
    delta: float | None = 0.25
    """Smallest log2 fold change that counts; None finds it by a mixture over all genes."""
    pseudocount: float | None = None
    """Added to the proportions; None takes what genes without counts get."""
    n_draws: int = 5000
    batches: np.ndarray | None = None
    """Batches that both sets are decoded in; None for each cell's own."""
    interval: float = 0.95
    reported_with: float = 1.0
    """Part of the pseudocount in the fold changes that are reported (not in those that are tested)."""


class Comparison(NamedTuple):
    """Result of a comparison."""

    effects: Effects
    differs: np.ndarray
    """Probability that a gene differs, (n_genes,)."""
    differs_in_parts: np.ndarray
    """The same in parts of the draws, (parts, n_genes)."""
    scale1: np.ndarray
    """Mean proportion in the first set, (n_genes,)."""
    scale2: np.ndarray
    """Mean proportion in the second set, (n_genes,)."""
    delta: float
    pseudocount: float


def compare_cells(
    model: VAE,
    table: CellTable,
    cells: tuple[np.ndarray, np.ndarray],
    mean_counts: tuple[np.ndarray, np.ndarray],
    options: ComparisonOptions,
    *,
    seed: np.random.SeedSequence,
    device: torch.device,
) -> Comparison:
    """Draw from both sets, decode the draws, compare them pair by pair.

    Memory: the draws of both sets, 8 bytes x draws x genes, however many cells there are.

    Parameters
    ----------
    model
        A fitted model.
    table
        All cells.
    cells
        Rows of the two sets.
    mean_counts
        Mean counts of the modelled genes in the two sets.
    options
        How they are compared.
    seed
        Seed of the draws.
    device
        Where to decode.
    """
    scales = []
    for rows, child in zip(cells, seed.spawn(2), strict=True):
        draws = plan_draws(rows, options.n_draws, options.batches, np.random.default_rng(child))
        torch_seed = int(child.generate_state(1, np.uint64)[0] >> 1)
        scales.append(draw_scales(model, table, draws, random_state=torch_seed, device=device))
    return compare_scales(scales[0], scales[1], mean_counts, options)


def compare_scales(
    scales1: np.ndarray, scales2: np.ndarray, mean_counts: tuple[np.ndarray, np.ndarray], options: ComparisonOptions
) -> Comparison:
    """Compare paired draws of proportions, each (n_draws, n_genes)."""
    c = pseudocount(scales1, scales2, *mean_counts) if options.pseudocount is None else options.pseudocount
    delta = options.delta
    if delta is None:
        delta = delta_by_mixture(mean_change(scales1, scales2, c))
    effects = summarise(
        scales1,
        scales2,
        mode=options.mode,
        delta=delta,
        pseudocount=c,
        reported=c * options.reported_with,
        interval=options.interval,
    )
    return Comparison(
        effects,
        effects.differs(options.mode, options.ways),
        effects.differs_in_parts(options.mode, options.ways),
        scales1.mean(0, dtype=np.float64),
        scales2.mean(0, dtype=np.float64),
        delta,
        c,
    )
