"""Correlations of denoised expression, and what they are of genes that have none."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from scipy.stats import rankdata

from ..numerics.sparse import to_dense
from ..training.batches import CellTable, minibatches
from ..training.random import seeded
from .null_genes import NullGenes, draw_null_counts, fit_null_genes

if TYPE_CHECKING:
    from ..modules.vae import VAE
    from ..training.config import TrainingConfig

CHUNK = 512
TOTAL = 1e4

Method = Literal["pearson", "spearman"]


class CorrelationRequest(NamedTuple):
    """Which correlations are asked for."""

    genes: np.ndarray
    """Positions among the modelled genes, (m,)."""
    batch_weights: np.ndarray | None
    """Weight of each batch in the average over batches; None decodes each cell in its own."""
    groups: np.ndarray
    """Group of each cell within which expression is compared, -1 for cells to leave out, (n_cells,)."""
    method: Method
    n_draws: int
    n_null: int
    """Null copies of each gene; 0 for none."""
    interval: float
    """Mass of the central interval of the null."""
    random_state: int
    observed: bool = True
    """Whether the counts are there to be correlated."""


class GeneCorrelations(NamedTuple):
    """Matrices (m, m), float64."""

    denoised: np.ndarray
    observed: np.ndarray
    """Of log-normalised counts."""
    null_high: np.ndarray
    """Upper end of the null's central interval; the lower end is its negative."""
    null_tail: np.ndarray
    """Share of null correlations at least as large in size, the denoised one counted along."""


@torch.no_grad()
def gene_correlations(
    model: VAE,
    table: CellTable,
    request: CorrelationRequest,
    config: TrainingConfig,
    *,
    n_steps: int,
    device: torch.device,
) -> GeneCorrelations:
    """Correlate the log of denoised expression over draws of z, dealt to the cells in turn."""
    model = model.to(device).eval()
    rng = np.random.default_rng(request.random_state)
    rows = np.resize(rng.permutation(np.flatnonzero(request.groups >= 0)), request.n_draws)
    heads = None
    with seeded(request.random_state, device):
        if request.n_null:
            null = draw_null_counts(table, request.genes, request.n_null, rng)
            heads = fit_null_genes(model, table, null, config, n_steps=n_steps, device=device)
        drawn = [_log_expression(model, table, rows[part], request, heads, device) for part in _parts(rows)]
    real, null_values = (centred(np.concatenate(columns), request.groups[rows]) for columns in zip(*drawn, strict=True))
    cells, observed = np.unique(rows), np.full((len(request.genes),) * 2, np.nan)
    if request.observed:
        values = centred(_observed(table, cells, request.genes), request.groups[cells])
        observed = correlate(values, values, request.method)
    denoised = correlate(real, real, request.method)
    high, tail = _null(real, null_values, denoised, request)
    return GeneCorrelations(denoised, observed, high, tail)


def centred(x: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Take off the mean of each group."""
    members = np.eye(groups.max() + 1, dtype=np.float32)[groups]
    return x - members @ ((members.T @ x) / np.maximum(members.sum(0), 1)[:, None])


def _parts(rows: np.ndarray) -> list[np.ndarray]:
    return list(minibatches(np.arange(len(rows)), CHUNK))


def _log_expression(
    model: VAE,
    table: CellTable,
    rows: np.ndarray,
    request: CorrelationRequest,
    heads: NullGenes | None,
    device: torch.device,
) -> tuple[np.ndarray, np.ndarray]:
    """Log of rho averaged over batches, of the genes and of the null genes, at one draw of z of each cell."""
    cells = table.take(rows).to(device)
    z = model.encode(cells).sample()
    genes = torch.from_numpy(request.genes).to(device)
    weights = request.batch_weights
    codes = [None] if weights is None else np.flatnonzero(weights).tolist()
    real, null = [], []
    for code in codes:
        batch = cells.batch if code is None else torch.full_like(cells.batch, code)
        offset = 0.0 if code is None or weights is None else float(np.log(weights[code]))
        output = model.decode(z, replace(cells, batch=batch))
        real.append(offset + model.likelihood.proportions(output)[:, genes].log())
        null.append(real[-1][:, :0] if heads is None else offset + heads.log_expression(output.hidden, batch))
    denoised, of_null = (torch.logsumexp(torch.stack(parts), 0).cpu().numpy() for parts in (real, null))
    return denoised, of_null


def _observed(table: CellTable, rows: np.ndarray, genes: np.ndarray) -> np.ndarray:
    """log(1 + counts per 10,000) of some cells and genes."""
    values = np.empty((len(rows), len(genes)), np.float32)
    for part in minibatches(np.arange(len(rows)), CHUNK):
        cells = table.take(rows[part])
        dense = to_dense(cells.counts.rows(), table.n_genes)[:, genes]
        values[part] = np.log1p(dense * (TOTAL / np.exp(cells.log_total.numpy()))[:, None])
    return values


def correlate(first: np.ndarray, second: np.ndarray, method: Method) -> np.ndarray:
    """Correlation of each column of `first` with each of `second`; NaN where one is constant."""
    a, b = (_standardised(x, method) for x in (first, second))
    return np.clip(a.T @ b, -1, 1)


def _standardised(x: np.ndarray, method: Method) -> np.ndarray:
    """Columns, or their ranks, with mean 0 and length 1."""
    x = (rankdata(x, axis=0) if method == "spearman" else x).astype(np.float64)
    x = x - x.mean(0)
    length = np.sqrt((x**2).sum(0))
    return x / np.where(length > 0, length, np.nan)


def _null(
    real: np.ndarray, null_values: np.ndarray, denoised: np.ndarray, request: CorrelationRequest
) -> tuple[np.ndarray, np.ndarray]:
    """Interval and tail of |correlation| of each gene with the null copies of the other."""
    m = real.shape[1]
    if not request.n_null:
        return np.full((m, m), np.nan), np.full((m, m), np.nan)
    copies = null_values.reshape(len(real), request.n_null, m)
    one = np.stack([correlate(real, copies[:, r], request.method) for r in range(request.n_null)])
    size = np.abs(np.concatenate([one, one.transpose(0, 2, 1)]))
    reached = (size >= np.abs(denoised)).sum(0)
    tail = (1 + reached) / (1 + len(size))
    return np.quantile(size, request.interval, axis=0, method="weibull"), np.where(np.isnan(denoised), np.nan, tail)
