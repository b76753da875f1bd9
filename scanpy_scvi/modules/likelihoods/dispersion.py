"""The four kinds of dispersion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import nn

from ..mlp import CovariateLinear
from ..part import normal_start
from ..wide_linear import wide_linear

if TYPE_CHECKING:
    from ..cells import Cells, Dimensions
    from ..growth import Growth
    from ..latent_order import LatentOrder

DispersionKind = Literal["gene", "gene-batch", "gene-label", "gene-cell"]


class LogTheta(NamedTuple):
    """log theta as a table and the row of it that each cell reads."""

    table: torch.Tensor
    """(n_rows, n_genes)."""
    row: torch.Tensor
    """(n,), integer."""

    def per_cell(self) -> torch.Tensor:
        """Broadcastable to (n, n_genes)."""
        return self.table if len(self.table) == 1 else self.table[self.row]


class Dispersion(nn.Module):
    """Inverse dispersion theta: one per gene, per gene and batch, per gene and label, or per gene and cell.

    theta_g = exp(t_g), theta_gb = exp(t_gb), theta_gl = exp(t_gl), or theta_ng = exp(W h_n + b), with h_n the
    decoder's last hidden layer. All are a table of rows over genes and a row number per cell, so one kernel serves
    the four.
    """

    def __init__(self, dims: Dimensions, *, kind: DispersionKind, n_hidden: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "gene-cell":
            self.head = CovariateLinear(n_hidden, dims.n_genes)
        else:
            n_rows = {"gene": 1, "gene-batch": dims.n_batches, "gene-label": dims.n_labels}[kind]
            self.log_theta = nn.Parameter(normal_start(n_rows, dims.n_genes))

    def forward(self, hidden: torch.Tensor, cells: Cells) -> LogTheta:
        """Table and rows for n cells."""
        if self.kind == "gene-cell":
            return LogTheta(wide_linear(hidden, self.head), torch.arange(cells.n_cells, device=hidden.device))
        if self.kind == "gene":
            return LogTheta(self.log_theta, torch.zeros_like(cells.batch))
        return LogTheta(self.log_theta, cells.batch if self.kind == "gene-batch" else cells.labels)

    @torch.no_grad()
    def grow(self, fitted: Dispersion, growth: Growth) -> dict[str, torch.Tensor]:
        """Take over fitted dispersions; those of new batches start at the weighted mean of the others."""
        if self.kind == "gene-cell":
            return {}  # the head grows by itself
        if self.kind != "gene-batch":
            self.log_theta.copy_(fitted.log_theta)
            return {}
        self.log_theta.copy_(growth.with_new_batches(fitted.log_theta))
        learned = torch.zeros_like(self.log_theta, dtype=torch.bool)
        learned[growth.new_batches] = True
        return {"log_theta": learned}

    @torch.no_grad()
    def shift_log_theta(self, shift: torch.Tensor) -> None:
        """Add `shift` (n_genes,) to every log theta of a gene."""
        (self.head.bias if self.kind == "gene-cell" else self.log_theta).add_(shift)

    @torch.no_grad()
    def set_log_theta(self, log_theta: torch.Tensor) -> None:
        """Start all rows from `log_theta` (n_genes,)."""
        if self.kind == "gene-cell":
            self.head.bias.copy_(log_theta)
        else:
            self.log_theta.copy_(log_theta.expand_as(self.log_theta))

    def reorder_hidden(self, order: LatentOrder) -> None:
        """Rename the units of the hidden layer, in place, where that is z itself."""
        if self.kind == "gene-cell":
            order.rename(self.head.weight, 1)
