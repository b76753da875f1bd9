"""Two sets of cells compared by what the model expects of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .effects import Effects, Mode, PairedDraws, Ways, delta_by_mixture, pseudocount, summarise

if TYPE_CHECKING:
    import numpy as np

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
    weighted: bool = False
    """Whether draws are weighted to follow the model's posterior rather than the encoder's."""
    residuals: bool = True
    """Whether changes that the counts show and the model does not are added to the draws."""
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
    delta: float
    pseudocount: float


def compare_draws(
    draws: PairedDraws, mean_counts: tuple[np.ndarray, np.ndarray], options: ComparisonOptions
) -> Comparison:
    """Compare two sets of cells by draws of their proportions.

    Parameters
    ----------
    draws
        Draws of the proportions.
    mean_counts
        Mean counts of the genes in the two sets.
    options
        How they are compared.
    """
    c = pseudocount(draws, *mean_counts) if options.pseudocount is None else options.pseudocount
    delta = options.delta
    if delta is None:
        delta = delta_by_mixture(summarise(draws, mode=options.mode, delta=0.0, pseudocount=c).mean)
    reported = c * options.reported_with
    effects = summarise(
        draws, mode=options.mode, delta=delta, pseudocount=c, reported=reported, interval=options.interval
    )
    differs = effects.differs(options.mode, options.ways), effects.differs_in_parts(options.mode, options.ways)
    return Comparison(effects, *differs, delta, c)
