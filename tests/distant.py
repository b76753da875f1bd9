"""Counts in memory that behave as if they lay in a file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from scanpy_scvi.training import sources

if TYPE_CHECKING:
    from scanpy_scvi.numerics.sparse import CSRRows
    from scanpy_scvi.training import CellTable


class Distant:
    """A source that notes what was asked of it."""

    def __init__(self, rows: CSRRows, together: int = 1) -> None:
        self._rows, self.together, self.in_memory = rows, together, False
        self.taken: list[np.ndarray] = []

    @property
    def n_cells(self) -> int:
        return self._rows.n_cells

    @property
    def n_entries(self) -> int:
        return self._rows.n_entries

    @property
    def indptr(self) -> np.ndarray:
        return self._rows.indptr

    def rows(self, start: int, stop: int) -> CSRRows:
        return self._rows.rows(start, stop)

    def take(self, rows: np.ndarray) -> CSRRows:
        self.taken.append(rows)
        return self._rows.take(rows)


def distant(table: CellTable, together: int = 1) -> CellTable:
    """The same cells, their counts far away."""
    return replace(table, counts=Distant(table.counts, together))


def set_buffer(monkeypatch, n_bytes: int) -> None:
    """Let one buffer hold so many bytes."""
    for module in ("training.sources", "training.shuffle", "store.backed_counts"):
        monkeypatch.setattr(f"scanpy_scvi.{module}.ONE_BUFFER", n_bytes)


def size(table: CellTable) -> int:
    """Bytes of the counts."""
    return sources.size_of(table.counts, np.arange(table.n_cells))
