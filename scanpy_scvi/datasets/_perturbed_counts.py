"""Counts of cells in given latent states, through a random network."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

from ._perturbation_protocols import GENE_TOTAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._perturbation_protocols import Options
    from ._perturbed_cells import Cells

N_HIDDEN = 40
LEAK = 0.2
CHUNK = 1024


class Expression(NamedTuple):
    """Everything between latent states and counts."""

    maps: list[np.ndarray]
    batch_shift: np.ndarray  # batches x genes
    theta: np.ndarray  # genes
    depth_factor: np.ndarray  # cells, mean 1
    scale: float  # one over the standard deviation of all logits
    log_norm: np.ndarray | None  # genes; None where a softmax is over genes


class Drawn(NamedTuple):
    """Counts, CSR, and for each cell the sum of its expected counts; all of these where they were asked for."""

    counts: sparse.csr_matrix
    library: np.ndarray
    rate: np.ndarray | None


def draw_expression(rng: np.random.Generator, cells: Cells, n_genes: int, options: Options) -> Expression:
    """Draw the network and what else the genes have, and find the sums that the softmax needs."""
    weights, batches, dispersions, depths = rng.spawn(4)
    n_latent = cells.z.shape[1]
    hidden = max(N_HIDDEN, n_latent)
    sizes = (n_latent, hidden, hidden, hidden, n_genes)
    maps = [_orthogonal(weights, a, b) for a, b in pairwise(sizes)]
    batch_shift = options.batch_effect * batches.normal(size=(options.n_batches, n_genes))
    low, high = options.theta if isinstance(options.theta, (tuple, list)) else (options.theta, options.theta)
    uniform = dispersions.random(n_genes)
    theta = low + (high - low) * uniform if low < high else np.full(n_genes, float(low))
    log_depth = options.depth_sd * depths.normal(size=len(cells.z)) - options.depth_sd**2 / 2
    drawn = Expression(maps, batch_shift, theta, np.exp(log_depth), 1.0, None)
    drawn = drawn._replace(scale=_scale(drawn, cells))
    if options.softmax_over == "genes":
        return drawn
    totals = [np.exp(part).sum(0) for _, part in _log_weights(drawn, cells)]
    return drawn._replace(log_norm=np.log(np.sum(totals, axis=0)))


def _orthogonal(rng: np.random.Generator, n_in: int, n_out: int) -> np.ndarray:
    """Orthonormal rows or columns, whichever are fewer.

    A scalar of He's kind would come with each map, but passes through the leaky ReLU and is divided out at the end.
    """
    tall = rng.normal(size=(max(n_in, n_out), min(n_in, n_out)))
    q, r = np.linalg.qr(tall)
    q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)  # uniform over orthonormal matrices, whatever LAPACK's signs
    return q if n_in >= n_out else q.T


def _logits(maps: list[np.ndarray], z: np.ndarray) -> np.ndarray:
    h = z
    for weight in maps[:-1]:
        h = h @ weight
        h = np.where(h > 0, h, LEAK * h)
    return h @ maps[-1]


def _scale(drawn: Expression, cells: Cells) -> float:
    total, squares = 0.0, 0.0
    for start in range(0, len(cells.z), CHUNK):
        part = _logits(drawn.maps, cells.z[start : start + CHUNK])
        total, squares = total + part.sum(), squares + (part**2).sum()
    n = len(cells.z) * drawn.batch_shift.shape[1]
    return float(1 / np.sqrt(squares / n - (total / n) ** 2))


def _log_weights(drawn: Expression, cells: Cells) -> Iterator[tuple[slice, np.ndarray]]:
    """Logits with a standard deviation of 1 plus effects of batch and depth, some cells at a time."""
    for start in range(0, len(cells.z), CHUNK):
        rows = slice(start, start + CHUNK)
        logits = drawn.scale * _logits(drawn.maps, cells.z[rows])
        yield rows, logits + drawn.batch_shift[cells.batch[rows]] + np.log(drawn.depth_factor[rows])[:, None]


def draw_counts(
    rng: np.random.Generator, drawn: Expression, cells: Cells, options: Options, *, keep_rate: bool
) -> Drawn:
    """Expected counts, and counts around them; a cell that comes out empty is drawn again."""
    shape = (len(cells.z), drawn.batch_shift.shape[1])
    counts, library, rates = [], np.empty(shape[0]), []
    for rows, log_weights in _log_weights(drawn, cells):
        weights = np.exp(log_weights)
        if drawn.log_norm is None:
            rate = options.depth * drawn.depth_factor[rows, None] * weights / weights.sum(1, keepdims=True)
        else:
            gene_total = GENE_TOTAL if options.depth is None else options.depth * shape[0] / shape[1]
            rate = gene_total * weights / np.exp(drawn.log_norm)
        counts.append(sparse.csr_matrix(_draw(rng, rate, drawn.theta), dtype=np.float32))
        library[rows] = rate.sum(1)
        if keep_rate:
            rates.append(rate.astype(np.float32))
    return Drawn(sparse.vstack(counts, format="csr"), library, np.concatenate(rates) if keep_rate else None)


def _draw(rng: np.random.Generator, rate: np.ndarray, theta: np.ndarray) -> np.ndarray:
    counts = np.zeros(rate.shape)
    empty = np.arange(len(rate))
    while len(empty):
        mean = rate[empty]
        counts[empty] = rng.poisson(rng.gamma(theta, mean / theta) if np.isfinite(theta).all() else mean)
        empty = np.flatnonzero(counts.sum(1) == 0)
    return counts
