"""What a model sees of the data: one minibatch of cells, and the sizes of everything."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import NamedTuple

import torch
from torch.nn import functional

from ..numerics.sparse import CSRRows, to_dense

MOST_KEPT = 256
"""Most categories whose identity matrix is kept."""


@dataclass(frozen=True)
class Dimensions:
    """Sizes of the data that the parts of a model are built for."""

    n_genes: int
    n_batches: int = 1
    n_labels: int = 1
    n_categories: tuple[int, ...] = ()
    """Number of categories of each further categorical covariate."""
    n_continuous: int = 0

    @property
    def n_covariates(self) -> int:
        """Columns of the covariate design; a variable with one category adds none."""
        one_hot = (self.n_batches, *self.n_categories)
        return sum(k for k in one_hot if k > 1) + self.n_continuous


class Counts(NamedTuple):
    """Count rows of one minibatch in CSR form, cells x genes."""

    indptr: torch.Tensor
    indices: torch.Tensor
    data: torch.Tensor
    n_genes: int

    def rows(self) -> CSRRows:
        """Hand out the same memory as NumPy arrays (CPU only)."""
        return CSRRows(self.indptr.numpy(), self.indices.numpy(), self.data.numpy())

    def cell_of_entry(self) -> torch.Tensor:
        """Row number of each stored entry."""
        per_cell = self.indptr.diff()
        return torch.repeat_interleave(torch.arange(len(per_cell), device=self.data.device), per_cell)

    def log1p(self) -> torch.Tensor:
        """Encoder input log(1 + x), dense, cells x genes."""
        if self.data.device.type == "cpu":
            return torch.from_numpy(to_dense(self.rows(), self.n_genes, log1p=True))
        dense = torch.zeros(len(self.indptr) - 1, self.n_genes, device=self.data.device)
        dense[self.cell_of_entry(), self.indices] = torch.log1p(self.data)
        return dense

    def scaled(self, factors: torch.Tensor) -> Counts:
        """Multiply the counts of each cell by its factor, (n,)."""
        return self._replace(data=self.data * torch.repeat_interleave(factors, self.indptr.diff()))

    def to(self, device: torch.device) -> Counts:
        """Copy to a device."""
        return Counts(self.indptr.to(device), self.indices.to(device), self.data.to(device), self.n_genes)


@dataclass(frozen=True)
class Cells:
    """One minibatch of n cells."""

    counts: Counts
    log_total: torch.Tensor
    """log of the total count over the modelled genes, (n,)."""
    log_size_factor: torch.Tensor
    """log of the user's size factor on the scale of totals, (n,); equal to `log_total` where none is given."""
    batch: torch.Tensor
    """Batch code, (n,)."""
    labels: torch.Tensor
    """Label code, (n,)."""
    categorical: torch.Tensor
    """Codes of the further categorical covariates, (n, number of covariates)."""
    continuous: torch.Tensor
    """Continuous covariates, (n, number of covariates)."""
    index: torch.Tensor
    """Position of each cell in the data set, (n,)."""

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.batch)

    def to(self, device: torch.device) -> Cells:
        """Copy to a device."""
        if self.batch.device == device:
            return self
        return Cells(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def covariate_design(cells: Cells, dims: Dimensions) -> torch.Tensor:
    """One-hot batch and categorical covariates beside the continuous ones, (n, dims.n_covariates)."""
    codes = [cells.batch, *(cells.categorical.unbind(1) if dims.n_categories else ())]
    sizes = [dims.n_batches, *dims.n_categories]
    columns = [one_hot(c, k) for c, k in zip(codes, sizes, strict=True) if k > 1]
    columns += [cells.continuous] if dims.n_continuous or not columns else []
    return columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)


def one_hot(codes: torch.Tensor, size: int) -> torch.Tensor:
    """Columns with a one at the code of each row, (n, size), float32."""
    if size > MOST_KEPT:
        return functional.one_hot(codes, size).float()
    return _unit_rows(size, codes.device).index_select(0, codes)


@lru_cache(maxsize=16)
def _unit_rows(size: int, device: torch.device) -> torch.Tensor:
    """The identity matrix, kept since it is needed twice in every step."""
    return torch.eye(size, dtype=torch.float32, device=device)
