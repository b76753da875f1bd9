"""Start a model at the average cell of each batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from ..modules.libraries import LogNormalLibrary
from ..modules.log_normalized import log_normalized
from ..modules.penalties import Axes
from .batches import minibatches
from .sources import CHUNK, blocks

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..modules.cells import Cells
    from ..modules.decoders.base import DecoderOutput
    from ..modules.penalties import Penalty
    from ..modules.vae import VAE
    from .batches import CellTable

SHRINKAGE = 10.0
"""Counts that a batch's own share of a gene must outweigh."""
FEW = 3.0
"""Counts that a gene must be off by before a new batch's own share of it counts for much."""
MOST_COMPARED = 1024
"""Cells of a new batch that are compared with what the model expects of them."""
EVALUATED = 256
MOST_FOR_AXES = 20_000
"""Cells that principal axes are found in, at most."""
LOG_THETA = 0.0
"""Start of log theta: clearly overdispersed, as counts are before z explains them."""


def start_from_data(model: VAE, table: CellTable) -> None:
    """Set the decoder's bias to the log mean proportions, theta to one, and a latent library to the mean log total.

    A network that starts from noise spends its first epochs on finding these averages. Where the decoder gives means of
    log-normalised counts, its bias is set to those.
    """
    total = model.likelihood.log_normalized_to
    means = batch_log_means(table) if total is None else batch_means_of_log1p(table, total, table.log_size_factor)
    model.decoder.set_log_means(torch.from_numpy(means))
    inputs = batch_means_of_log1p(table, model.encoder.input_total, table.log_total)
    model.encoder.set_input_means(torch.from_numpy(inputs))
    model.likelihood.set_log_theta(torch.full((table.n_genes,), LOG_THETA))
    if isinstance(model.library, LogNormalLibrary):
        model.library.set_log_mean(float(table.log_total.mean()))
    own = model.encoder.representations()
    if own is not None:
        z = torch.from_numpy(principal_scores(table, own.shape[1])).to(own.device)
        with torch.no_grad():
            own.copy_(z)
        model.prior.set_places(z)


def principal_scores(table: CellTable, n: int) -> np.ndarray:
    """First `n` principal components of log(1 + x / l median(l)), with a variance of one on average, float32.

    Scores that do not exist, of fewer cells or genes, are zero. The randomness of the search is torch's own.
    """
    log_level = float(np.median(table.log_total))
    if table.counts.in_memory:
        x = _log_normalised(table, log_level)
        rank = min(n + 1, *x.shape)
        u, s, _ = randomized_svd(x, rank, random_state=int(torch.randint(2**31, ())))
        scores = (u - u.mean(0)) * s
    else:
        scores = _projected(table, n + 1, log_level)
    u, s, _ = np.linalg.svd(scores, full_matrices=False)  # of what is left of the directions without the mean
    out = np.zeros((table.n_cells, n), np.float32)
    k = min(n, scores.shape[1])
    out[:, :k] = (u * s)[:, :k]
    return out / max(float(out.std()), 1e-8)


def _projected(table: CellTable, n: int, log_level: float) -> np.ndarray:
    """Centred scores of all cells on `n` directions that some of them vary in, cells x n, a few cells at a time."""
    some = table.subset(np.linspace(0, table.n_cells - 1, min(MOST_FOR_AXES, table.n_cells)).astype(np.int64))
    x = _log_normalised(some, log_level)
    _, _, v = randomized_svd(x, min(n, *x.shape), random_state=int(torch.randint(2**31, ())))
    parts = np.array_split(np.arange(table.n_cells), -(-table.n_cells // CHUNK))
    scores = np.concatenate([_log_normalised(table.subset(part), log_level) @ v.T for part in parts])
    return scores - scores.mean(0)


def start_penalties(model: VAE, table: CellTable, device: torch.device) -> None:
    """Give penalties the principal axes of the data, where they want some."""
    for penalty in cast("list[Penalty]", list(model.penalties)):
        if penalty.n_axes:
            axes = principal_axes(table, penalty.n_axes)
            penalty.set_axes(axes._replace(weights=axes.weights.to(device)))


def principal_axes(table: CellTable, n: int) -> Axes:
    """First `n` principal axes of log(1 + x / l median(l)) of up to `MOST_FOR_AXES` cells, fewer where there are fewer.

    The randomness of the search is torch's own.
    """
    if table.n_cells > MOST_FOR_AXES:
        table = table.subset(np.linspace(0, table.n_cells - 1, MOST_FOR_AXES).astype(np.int64))
    log_level = float(np.median(table.log_total))
    x = _log_normalised(table, log_level)
    rank = min(n + 1, *x.shape)
    u, s, v = randomized_svd(x, rank, random_state=int(torch.randint(2**31, ())))
    rotation = np.linalg.svd((u - u.mean(0)) * s, full_matrices=False)[2]  # to axes of what varies
    return Axes(torch.from_numpy((rotation @ v)[:n].T.astype(np.float32)), float(np.exp(log_level)))


def _log_normalised(table: CellTable, log_level: float) -> sparse.csr_array:
    """log(1 + x) of the counts at a total of exp(log_level) in every cell."""
    counts, factor = table.counts.rows(0, table.n_cells), np.exp(log_level - table.log_total)
    values = np.log1p(counts.data * np.repeat(factor, np.diff(counts.indptr)))
    return sparse.csr_array((values, counts.indices, counts.indptr), shape=(table.n_cells, table.n_genes))


@torch.no_grad()
def start_new_batch(model: VAE, table: CellTable, batch: int, *, device: torch.device) -> None:
    """Set what a grown model has for a new batch by what its cells differ in from cells of the average old batch.

    The batch is taken to be the average one first, which is how its columns come. Counts are drawn for its cells as if
    they were of that batch; by how much log(1 + c x) is larger in the real ones is taken off the encoder's input, with
    the c that was chosen before. With z from that, genes whose totals the model misses are shifted in the output.
    Neither takes differences in composition for an effect of the batch, since z is that of the cells.

    Parameters
    ----------
    model
        The model, in evaluation mode.
    table
        Cells of the new batch.
    batch
        Its code.
    device
        Where to compute.
    """
    rows = some_rows(table)
    excess = torch.zeros(table.n_genes, dtype=torch.float64, device=device)
    for part in minibatches(rows, EVALUATED):
        cells = table.take(part).to(device)
        output, log_library = _at_the_mean(model, cells)
        drawn = model.likelihood.sample(output, log_library, cells)
        scale = model.encoder.input_scale(cells)
        counts, drawn = (cells.counts, drawn) if scale is None else (cells.counts.scaled(scale), scale[:, None] * drawn)
        excess += (counts.log1p() - drawn.log1p()).double().sum(0)
    model.encoder.shift_input(batch, excess / len(rows))
    model.decoder.shift_log_means(batch, _missed(model, table, rows, device))


def _missed(model: VAE, table: CellTable, rows: np.ndarray, device: torch.device) -> torch.Tensor:
    """By how much the decoder's output is too low for cells, at the posterior means, (n_genes,)."""
    seen, expected = (torch.zeros(table.n_genes, dtype=torch.float64, device=device) for _ in range(2))
    total = model.likelihood.log_normalized_to
    for part in minibatches(rows, EVALUATED):
        cells = table.take(part).to(device)
        output, log_library = _at_the_mean(model, cells)
        if total is not None:
            seen += log_normalized(cells.counts, log_library, total).double().sum(0)
            expected += output.params.double().sum(0)
        else:
            seen.index_add_(0, cells.counts.indices.long(), cells.counts.data.double())
            expected += (model.likelihood.expected_shares(output) * log_library.exp()[:, None]).double().sum(0)
    return torch.log((seen + FEW) / (expected + FEW)) if total is None else (seen - expected) / len(rows)


def some_rows(table: CellTable) -> np.ndarray:
    """Cells spread over the table."""
    return np.unique(np.linspace(0, table.n_cells - 1, MOST_COMPARED).astype(np.int64))


def _at_the_mean(model: VAE, cells: Cells) -> tuple[DecoderOutput, torch.Tensor]:
    """Decoder's output and log library of cells at the posterior means."""
    return model.decode(model.encode(cells).mean, cells), model.library.mean(cells)


def batch_log_means(table: CellTable) -> np.ndarray:
    """Log mean proportions of each batch, batches x genes, float32.

    The share of a gene in a batch is shrunk towards its overall share by the weight of `SHRINKAGE` counts, so that
    what a small batch happens not to contain is not taken for impossible.
    """
    totals = _batch_sums(table)
    overall = (totals.sum(0) + 0.5) / (totals.sum() + 0.5 * table.n_genes)
    expected = totals.sum(1, keepdims=True) * overall
    shares = overall * (totals + SHRINKAGE) / (expected + SHRINKAGE)
    return np.log(shares / shares.sum(1, keepdims=True)).astype(np.float32)


def batch_means_of_log1p(
    table: CellTable, total: float | None = None, log_library: np.ndarray | None = None
) -> np.ndarray:
    """Mean of log(1 + x) in each batch, batches x genes, float32; with T = `total`, of log(1 + T x / l)."""
    factors = None if total is None or log_library is None else total * np.exp(-log_library)
    n_cells = np.bincount(table.batch)[:, None]
    return (_batch_sums(table, np.log1p, factors) / n_cells).astype(np.float32)


def _batch_sums(
    table: CellTable, transform: Callable[[np.ndarray], np.ndarray] | None = None, factors: np.ndarray | None = None
) -> np.ndarray:
    """Sum over the cells of each batch of a function of the counts, times factors, that is 0 at 0, batches x genes."""
    n_batches = int(table.batch.max()) + 1
    sums = np.zeros(n_batches * table.n_genes)
    for cells, rows in blocks(table.counts):
        lengths = np.diff(rows.indptr)
        x = rows.data if factors is None else rows.data * np.repeat(factors[cells], lengths)
        entry = np.repeat(table.batch[cells], lengths) * table.n_genes + rows.indices
        sums += np.bincount(entry, weights=x if transform is None else transform(x), minlength=len(sums))
    return sums.reshape(n_batches, table.n_genes)
