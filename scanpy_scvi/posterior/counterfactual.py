"""What cells would express in other latent states, or with another category of a covariate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy import stats

from ..training.batches import CellTable, minibatches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..modules.cells import Cells
    from ..modules.vae import VAE
    from .shifts import Shift

CHUNK = 512
MOST_CELLS = 200
"""Cells of a type that tell how uncertain its mean expression is."""
LEVEL = 0.95
"""Share of what one more type may show that intervals are meant to hold."""


class Covariate(NamedTuple):
    """A categorical covariate that cells are given other values of."""

    column: int | None
    """Number of the further covariate; None for the batch."""
    weights: np.ndarray
    """Weight of each category in the average over them."""

    def given(self, cells: Cells) -> Iterator[tuple[float, Cells]]:
        """Yield the cells with each category, and its weight."""
        for code in np.flatnonzero(self.weights):
            if self.column is None:
                there = replace(cells, batch=torch.full_like(cells.batch, int(code)))
            else:
                codes = cells.categorical.clone()
                codes[:, self.column] = int(code)
                there = replace(cells, categorical=codes)
            yield float(self.weights[code]), there


@dataclass(frozen=True)
class Decoding:
    """How latent states are decoded, and to what."""

    library_size: float | None
    """Total that proportions are scaled to; None for the decoder's own means of log-normalised counts."""
    genes: np.ndarray | None = None
    """Positions of the genes wanted; None for all."""
    covariate: Covariate | None = None
    """What is changed of the cells' covariates; None leaves them as they are."""

    def of(self, model: VAE, cells: Cells, z: torch.Tensor) -> torch.Tensor:
        """Expression of n cells at z, (n, n_genes)."""
        total = torch.zeros(())
        for weight, there in [(1.0, cells)] if self.covariate is None else self.covariate.given(cells):
            output = model.decode(z, there)
            found = output.params if self.library_size is None else model.likelihood.proportions(output)
            total = total.to(found) + weight * found
        total = total if self.genes is None else total[:, torch.from_numpy(self.genes).to(total.device)]
        return total if self.library_size is None else total * self.library_size


@torch.no_grad()
def decoded(
    model: VAE, table: CellTable, rows: np.ndarray, z: np.ndarray, how: Decoding, *, device: torch.device
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield (part of `rows`, expression) for chunks of the cells `rows` in the latent states `z`, (n, n_latent)."""
    model = model.to(device).eval()
    for part in minibatches(np.arange(len(rows)), CHUNK):
        cells = table.take(rows[part], counts=False).to(device)
        states = torch.from_numpy(z[part].astype(np.float32)).to(device)
        yield slice(int(part[0]), int(part[-1]) + 1), how.of(model, cells, states).cpu().numpy()


def mean_decoded(
    model: VAE, table: CellTable, rows: np.ndarray, z: np.ndarray, how: Decoding, *, device: torch.device
) -> np.ndarray:
    """Mean over the cells `rows` of what is decoded, (n_genes,), float64."""
    sums = [values.sum(0, dtype=np.float64) for _, values in decoded(model, table, rows, z, how, device=device)]
    return np.sum(sums, axis=0) / len(rows)


class Interval(NamedTuple):
    """How far a mean may be off, for each gene."""

    se: np.ndarray
    low: np.ndarray
    high: np.ndarray


def interval(
    model: VAE,
    table: CellTable,
    rows: np.ndarray,
    z: np.ndarray,
    shift: Shift,
    mean: np.ndarray,
    how: Decoding,
    *,
    device: torch.device,
) -> Interval:
    r"""Standard error and interval of the mean expression of the cells `rows` after a shift, from its replicates.

    With the standard deviation s over C types' own shifts, the standard error is :math:`s / \sqrt C`, and one more type
    may be off by :math:`t_{C-1}\, s \sqrt{1 + 1/C}`, as for a normal sample. Replicates of other kinds tell of the
    cells' noise alone, and the interval is that of the normal distribution. Expression that is positive is looked at on
    the scale of its logarithm, where shifts add.
    """
    few = rows[np.unique(np.linspace(0, len(rows) - 1, MOST_CELLS).astype(np.int64))]
    states = z[np.searchsorted(rows, few)]
    found = np.stack([mean_decoded(model, table, few, states + r, how, device=device) for r in shift.replicates])
    positive = how.library_size is not None
    sd = (np.log(found) if positive else found).std(0, ddof=1)
    n = len(found)
    se = sd / np.sqrt(n) if shift.of_types else sd
    if shift.of_types:
        half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * sd * np.sqrt(1 + 1 / n)
    else:
        half = stats.norm.ppf((1 + LEVEL) / 2) * sd
    if positive:
        return Interval(mean * se, mean * np.exp(-half), mean * np.exp(np.minimum(half, 80.0)))
    return Interval(se, mean - half, mean + half)
