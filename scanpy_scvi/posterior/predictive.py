"""Replicated counts of cells, and how they compare with the observed ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ..numerics.sparse import to_dense
from ..training.in_turn import in_turn
from ..training.random import seeded
from ..training.sources import blocks
from .calibration import Coverage, RankCounter
from .statistics import CountStatistics, Replicated

if TYPE_CHECKING:
    from ..modules.cells import Cells
    from ..modules.encoders.base import LatentPosterior
    from ..modules.vae import VAE
    from ..training.batches import CellTable

CHUNK = 256


class PredictiveCheck(NamedTuple):
    """Statistics of genes (over cells) and of cells (over genes), under their names, and the coverage of intervals."""

    genes: dict[str, Replicated]
    cells: dict[str, Replicated]
    coverage: Coverage


def draw_replicate(model: VAE, cells: Cells, posterior: LatentPosterior) -> torch.Tensor:
    """Counts drawn anew for cells, (n, n_genes): at a draw of z, and of l where it is latent."""
    z = posterior.sample()
    log_library = model.library(cells).log_library
    return model.likelihood.sample(model.decode(z, cells), log_library, cells)


@torch.no_grad()
def predictive_check(
    model: VAE,
    table: CellTable,
    *,
    n_samples: int,
    random_state: int,
    device: torch.device,
    genes: np.ndarray | None = None,
) -> PredictiveCheck:
    """Compare the counts of `genes` (positions; all by default) with `n_samples` replicates of them.

    A few cells at a time: memory is that of a chunk of cells and of `n_samples` rows of genes.
    """
    model = model.to(device).eval()
    chosen = np.arange(table.n_genes) if genes is None else genes
    of_genes = _Sums(n_samples, len(chosen))
    ranks = RankCounter(_gene_totals(table)[chosen] / table.n_cells, n_samples)
    of_cells: list[dict[str, Replicated]] = []
    with seeded(random_state, device):
        for rows, cells in in_turn(table, CHUNK):
            observed = torch.from_numpy(to_dense(cells.counts.rows(), table.n_genes)[:, chosen])
            sums = _Sums(n_samples, len(rows))
            for sink, axis in ((of_genes, 0), (sums, 1)):
                sink.add(0, observed, axis)
            there = cells.to(device)
            posterior = model.encode(there)
            below, equal = (torch.zeros(observed.shape, dtype=torch.int16) for _ in range(2))
            for k in range(1, n_samples + 1):
                drawn = draw_replicate(model, there, posterior).cpu()[:, chosen]
                below += drawn < observed
                equal += drawn == observed
                for sink, axis in ((of_genes, 0), (sums, 1)):
                    sink.add(k, drawn, axis)
            ranks.add(below.numpy(), equal.numpy())
            of_cells.append(sums.compare(len(chosen)))
    return PredictiveCheck(of_genes.compare(table.n_cells), _joined(of_cells), ranks.coverage())


class _Sums:
    """Sums of counts, of squares and of positive counts: row 0 of the observed counts, row k of replicate k."""

    def __init__(self, n_samples: int, size: int) -> None:
        self.total, self.squares, self.positive = (np.zeros((n_samples + 1, size)) for _ in range(3))

    def add(self, k: int, counts: torch.Tensor, axis: int) -> None:
        """Take in cells x genes, summed over an axis in float64, where whole numbers stay exact."""
        counts = counts.double()
        self.total[k] += counts.sum(axis).numpy()
        self.squares[k] += counts.square().sum(axis).numpy()
        self.positive[k] += (counts > 0).sum(axis).numpy()

    def compare(self, n: int) -> dict[str, Replicated]:
        """Statistics over n counts, observed against replicated."""
        found = CountStatistics.of_sums(self.total, self.squares, self.positive, n)
        return {name: Replicated.of(values[0], values[1:]) for name, values in found._asdict().items()}


def _joined(chunks: list[dict[str, Replicated]]) -> dict[str, Replicated]:
    """Statistics of all cells from those of chunks of them."""
    parts = {name: zip(*(chunk[name] for chunk in chunks), strict=True) for name in chunks[0]}
    return {name: Replicated(*map(np.concatenate, fields)) for name, fields in parts.items()}


def _gene_totals(table: CellTable) -> np.ndarray:
    totals = np.zeros(table.n_genes)  # of whole numbers, whose sums are exact in any order
    for _, rows in blocks(table.counts):
        totals += np.bincount(rows.indices, weights=rows.data, minlength=table.n_genes)
    return totals
