"""What a fit will cost in time and memory."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..modules.spec import ModelSpec, Part
from ..numerics.sparse import CSRRows
from ..training import CellTable, TrainingConfig, fit, seeded
from ..training.config import default_max_epochs
from ..training.device import resolve_device
from ..training.sources import BYTES_PER_ENTRY, MOST_KEPT, ONE_BUFFER
from .memory import LAYER_SHARE, available_memory

if TYPE_CHECKING:
    from scipy import sparse

    from ..modules.cells import Dimensions

COPIES = 11
"""Copies of the weights that a fit holds: weights, gradient, two moments, average, best, a state to go back to
(weights, two moments, average), and the weights that make room for the average while the held-out cells are judged."""
BUFFERS = 12
"""Arrays of minibatch x genes that one step holds at a time."""
BUFFERS_OF_COUNTS, PER_CELL = 3, 24
"""Buffers of a fit from a file, one trained on, one being read, one of pieces; bytes that are kept of each cell."""
TIMED_EPOCHS = 2
MAX_TIMED_ENTRIES = 8_000_000
"""Cells x genes of a timed epoch at most, so that the timing takes about a second."""
DECODING = 0.25
"""Time to decode a cell in one batch, as a share of its time in an epoch (measured: 0.17 to 0.29)."""
MIN_TIMED_CELLS = 20


@dataclass(frozen=True)
class CostOptions:
    """The options of a fit that decide what it costs; as in `tl.scvi`."""

    likelihood: str = "nb"
    n_latent: int = 20
    n_hidden: int = 128
    n_layers: int = 2
    max_epochs: int | None = None
    batch_size: int = 128
    device: str = "auto"


class Cost(NamedTuple):
    """An estimate of what a fit costs; bytes and seconds."""

    max_epochs: int
    n_batches: int
    seconds_per_epoch: float | None
    """None where there are too few cells to time."""
    counts: int
    """Bytes of the counts over the modelled genes."""
    parameters: int
    """Bytes of all copies of the weights."""
    minibatch: int
    """Bytes of one step's arrays."""
    normalized: int
    """Bytes of the normalized layer, cells x genes."""
    free: int | None
    """Bytes that are free now; None where the system does not say."""

    @property
    def writes_normalized(self) -> bool:
        """Whether `normalized="auto"` writes the layer."""
        return self.free is None or self.normalized <= LAYER_SHARE * self.free

    @property
    def memory(self) -> int:
        """Bytes in all, beyond what `adata` takes now."""
        return self.counts + self.parameters + self.minibatch + (self.normalized if self.writes_normalized else 0)

    @property
    def seconds(self) -> float | None:
        """Seconds of all epochs and of the normalized layer, which averages over batches; stopping early saves some."""
        if self.seconds_per_epoch is None:
            return None
        decoding = DECODING * self.n_batches if self.writes_normalized else 0
        return (self.max_epochs + decoding) * self.seconds_per_epoch


def estimate_cost(
    sample: sparse.csr_array,
    shape: tuple[int, int],
    n_entries: int,
    dims: Dimensions,
    options: CostOptions,
    *,
    in_file: bool = False,
) -> Cost:
    """Estimate the cost of a fit, by timing two epochs on a sample of the cells.

    Memory is counted: eight bytes for each non-zero count of the modelled genes (of a large file, a few buffers), the
    weights times the copies that a fit holds, the arrays of one minibatch, and four bytes for each cell and gene of the
    normalized layer.

    Parameters
    ----------
    sample
        Some of the cells over the modelled genes, float32.
    shape
        Cells and genes of the whole object.
    n_entries
        Non-zero counts of the modelled genes, in all cells.
    dims
        Sizes that the model is built for.
    options
        What is to be fitted.
    in_file
        Whether the counts are read from a file while the fit goes on.
    """
    n_cells, n_vars = shape
    spec = _spec(dims, options)
    n_weights, per_cell = _time_fit(sample, dims, spec, options)
    return Cost(
        max_epochs=options.max_epochs or default_max_epochs(n_cells, options.batch_size),
        n_batches=dims.n_batches,
        seconds_per_epoch=None if per_cell is None else n_cells * per_cell,
        counts=_bytes_of_counts(n_cells, n_entries, in_file=in_file),
        parameters=4 * COPIES * n_weights,
        minibatch=4 * BUFFERS * options.batch_size * dims.n_genes,
        normalized=4 * n_cells * n_vars,
        free=available_memory(),
    )


def _bytes_of_counts(n_cells: int, n_entries: int, *, in_file: bool) -> int:
    """Bytes of counts that are in memory during a fit."""
    whole = BYTES_PER_ENTRY * n_entries
    if not in_file or whole <= ONE_BUFFER:
        return whole + 8 * n_cells
    held_out = min(MOST_KEPT, int(TrainingConfig.validation_size * whole))
    return BUFFERS_OF_COUNTS * ONE_BUFFER + held_out + PER_CELL * n_cells


def _spec(dims: Dimensions, options: CostOptions) -> ModelSpec:
    """Build the specification of scVI of that size."""
    network = {
        "n_latent": options.n_latent,
        "n_hidden": options.n_hidden,
        "n_layers": options.n_layers,
        "norm": "batch",
    }
    return ModelSpec(
        dims=dims,
        encoder=Part("mlp", {**network, "dropout_rate": 0.1}),
        library=Part("observed"),
        decoder=Part("mlp", network),
        likelihood=Part(options.likelihood),
        prior=Part("normal"),
    )


def _time_fit(
    sample: sparse.csr_array, dims: Dimensions, spec: ModelSpec, options: CostOptions
) -> tuple[int, float | None]:
    """Return the number of weights, and the seconds of a cell in an epoch."""
    device = resolve_device(options.device)
    with seeded(0, device):
        model = spec.build()
        n_weights = sum(p.numel() for p in model.parameters())
        table = _table(sample, dims)
        if table.n_cells < MIN_TIMED_CELLS:
            return n_weights, None
        ends: list[float] = []
        config = TrainingConfig(
            max_epochs=1 + TIMED_EPOCHS, batch_size=options.batch_size, learning_rate=1e-4, early_stopping=False
        )
        fit(model, table, config, device=device, on_epoch=lambda *_: ends.append(time.perf_counter()))
    return n_weights, float(np.diff(ends).min()) / table.n_cells


def _table(sample: sparse.csr_array, dims: Dimensions) -> CellTable:
    """Cells of the sample that have counts, with made-up covariates: their values cost no time."""
    totals = np.asarray(sample.sum(axis=1)).ravel()
    rows = np.flatnonzero(totals > 0)[: max(MIN_TIMED_CELLS, MAX_TIMED_ENTRIES // dims.n_genes)]
    counts, log_total = sample[rows], np.log(totals[rows]).astype(np.float32)
    n = len(rows)
    return CellTable(
        counts=CSRRows(counts.indptr.astype(np.int64), counts.indices.astype(np.int32), counts.data),
        n_genes=dims.n_genes,
        log_total=log_total,
        log_size_factor=log_total,
        batch=np.arange(n) % dims.n_batches,
        labels=np.zeros(n, np.int64),
        categorical=np.stack([np.arange(n) % k for k in dims.n_categories], axis=1)
        if dims.n_categories
        else np.zeros((n, 0), np.int64),
        continuous=np.zeros((n, dims.n_continuous), np.float32),
    )
