"""The data of a fit in the memory of another device, and minibatches gathered there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..modules.cells import Cells, Counts
from ..numerics.sparse import CSRRows
from .batches import COLUMNS

if TYPE_CHECKING:
    from .batches import CellTable

SHARE = 0.5
"""Share of a device's free memory that the data may take; the rest is for the model and its minibatches."""


@dataclass(frozen=True)
class ResidentTable:
    """All cells as tensors of one device: what a :class:`.CellTable` holds, gathered without a copy from the host."""

    cells: Cells
    """Every cell, in order."""

    @classmethod
    def of(cls, table: CellTable, device: torch.device) -> ResidentTable:
        """Copy a table to a device, counts as they are stored."""
        rows = table.counts.rows(0, table.n_cells)
        indptr, indices, data = (torch.from_numpy(np.ascontiguousarray(a)) for a in rows)
        counts = Counts(indptr, indices, data, table.n_genes)
        columns = {name: torch.from_numpy(getattr(table, name)) for name in COLUMNS}
        cells = Cells(counts=counts, **columns, index=torch.arange(table.n_cells))
        return cls(cells.to(device))

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self.cells.n_cells

    def take(self, rows: np.ndarray) -> Cells:
        """Gather the cells numbered `rows`, on the device."""
        cells, counts = self.cells, self.cells.counts
        at = torch.from_numpy(rows).to(counts.data.device)
        start = counts.indptr[at]
        length = counts.indptr[at + 1] - start
        indptr = torch.nn.functional.pad(length.cumsum(0), (1, 0))
        # the j-th entry of a minibatch lies as far behind its row's start there as here
        entry = torch.arange(int(indptr[-1]), device=at.device) + torch.repeat_interleave(start - indptr[:-1], length)
        return Cells(
            counts=Counts(indptr, counts.indices[entry], counts.data[entry], counts.n_genes),
            log_total=cells.log_total[at],
            log_size_factor=cells.log_size_factor[at],
            batch=cells.batch[at],
            labels=cells.labels[at],
            categorical=cells.categorical[at],
            continuous=cells.continuous[at],
            index=at,
        )


def resident(table: CellTable, device: torch.device) -> CellTable | ResidentTable:
    """Move a table to a device other than the CPU where it fits there; else return it, to be copied by minibatches.

    Counts in a file stay there: how they are shuffled does not depend on the device.
    """
    if device.type == "cpu" or not isinstance(table.counts, CSRRows) or _bytes(table) > SHARE * _free(device):
        return table
    return ResidentTable.of(table, device)


def _bytes(table: CellTable) -> int:
    """Size of a table."""
    return sum(a.nbytes for a in (*table.counts.rows(0, table.n_cells), *table.columns()))


def _free(device: torch.device) -> float:
    """Bytes of free memory of a device; 0 where it does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return 0.0
