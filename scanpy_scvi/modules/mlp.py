"""The one dense block that all networks are made of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import nn
from torch.nn import functional

from ..numerics.design_rows import add_design
from .cells import Counts
from .count_linear import count_linear
from .fused_block import can_fuse, fused_block
from .shared import Part, dropout, shared_part
from .shared_norm import shared_norm

if TYPE_CHECKING:
    from .growth import Growth

Norm = Literal["batch", "layer", "none"]


class CovariateLinear(nn.Module):
    """Linear map of features and covariates, W h + V s + b; of counts x, W log(1 + x) + V s + b.

    It equals one linear map of their concatenation, without making that copy; covariate columns stay apart,
    so that new batches can be added to a fitted model. Weights are stored input-major, so that those of one gene lie
    side by side: a sparse product reads them gene by gene.
    """

    def __init__(self, n_in: int, n_out: int, n_covariates: int = 0) -> None:
        super().__init__()
        limit = 1 / math.sqrt(n_in + n_covariates)
        self.weight = nn.Parameter(torch.empty(n_in, n_out).uniform_(-limit, limit).T)
        self.bias = nn.Parameter(torch.empty(n_out).uniform_(-limit, limit))
        self.covariate_weight = (
            nn.Parameter(torch.empty(n_covariates, n_out).uniform_(-limit, limit).T) if n_covariates else None
        )

    def forward(self, h: torch.Tensor | Counts, covariates: torch.Tensor | None = None) -> torch.Tensor:
        """Map (n, n_in) and (n, n_covariates) to (n, n_out)."""
        if isinstance(h, Counts):
            out = count_linear(h, self.weight) + self.bias
        else:
            out = functional.linear(h, self.weight, self.bias)
        if self.covariate_weight is None:
            return out
        design, offsets = cast("torch.Tensor", covariates), self.covariate_weight.T
        if torch.is_grad_enabled() or out.device.type != "cpu" or out.dtype != torch.float32:
            return out.addmm_(design, offsets)
        add_design(out.numpy(), design.numpy(), offsets.detach().numpy())  # the same bits when columns are added
        return out

    def grow(self, fitted: CovariateLinear, growth: Growth) -> dict[str, torch.Tensor]:
        """Take over fitted weights; columns of new categories start at the weighted mean of the old ones."""
        with torch.no_grad():
            self.weight.copy_(fitted.weight)
            self.bias.copy_(fitted.bias)
        return grow_columns(self.covariate_weight, fitted.covariate_weight, growth)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        n_out, n_in = self.weight.shape
        n_covariates = 0 if self.covariate_weight is None else self.covariate_weight.shape[1]
        return f"{n_in}, {n_out}, n_covariates={n_covariates}"


@torch.no_grad()
def grow_columns(mine: torch.Tensor | None, fitted: torch.Tensor | None, growth: Growth) -> dict[str, torch.Tensor]:
    """Take over fitted covariate columns, where there are any, and start those of new categories at their mean.

    Returns
    -------
    Which entries are to be learned, bool, under the name `covariate_weight`.
    """
    if mine is None:
        return {}
    columns = growth.columns
    mine.zero_()
    if fitted is not None:
        mine[:, columns.kept] = fitted
        mine[:, columns.learned] = fitted @ columns.start
    learned = torch.zeros_like(mine, dtype=torch.bool)
    learned[:, columns.learned] = True
    return {"covariate_weight": learned}


class DenseBlock(nn.Module):
    """Linear map of features and covariates, normalisation, ReLU, dropout."""

    def __init__(
        self, n_in: int, n_out: int, n_covariates: int, *, norm: Norm, norm_momentum: float, dropout_rate: float
    ) -> None:
        super().__init__()
        self.linear = CovariateLinear(n_in, n_out, n_covariates)
        self.norm = normalisation(norm, n_out, norm_momentum)
        self.dropout = nn.Dropout(dropout_rate)

    def forward(self, h: torch.Tensor | Counts, covariates: torch.Tensor) -> torch.Tensor:
        """Map (n, n_in) to (n, n_out)."""
        part = shared_part() if self.training else None
        if can_fuse(self.linear, self.norm, len(covariates) if part is None else part.n):
            return fused_block(h, covariates, self.linear, cast("nn.BatchNorm1d", self.norm), self.dropout.p, part)
        a = self.linear(h, covariates)
        if part is None:
            return self.dropout(functional.relu(self.norm(a)))
        return dropout(functional.relu(self._shared_norm(a, part)), self.dropout.p, part)

    def _shared_norm(self, a: torch.Tensor, part: Part) -> torch.Tensor:
        """Normalise a part of a minibatch; but for batch normalisation, cells do not matter to each other."""
        return shared_norm(a, self.norm, part) if isinstance(self.norm, nn.BatchNorm1d) else self.norm(a)


def normalisation(norm: Norm, width: int, momentum: float) -> nn.Module:
    """Make the normalisation layer that follows a linear map."""
    if norm == "batch":
        return nn.BatchNorm1d(width, momentum=momentum, eps=1e-3)
    if norm == "layer":
        return nn.LayerNorm(width, elementwise_affine=False)
    return nn.Identity()


class MLP(nn.Module):
    """`n_layers` dense blocks, covariates injected in the first or in all of them."""

    def __init__(
        self,
        n_in: int,
        n_covariates: int,
        *,
        n_hidden: int,
        n_layers: int,
        norm: Norm,
        dropout_rate: float,
        norm_momentum: float = 0.1,
        inject_covariates: bool = True,
    ) -> None:
        super().__init__()
        widths = [n_in] + [n_hidden] * n_layers
        self.blocks = nn.ModuleList(
            DenseBlock(
                widths[i],
                widths[i + 1],
                n_covariates if i == 0 or inject_covariates else 0,
                norm=norm,
                norm_momentum=norm_momentum,
                dropout_rate=dropout_rate,
            )
            for i in range(n_layers)
        )

    def first_linear(self) -> CovariateLinear:
        """Linear map that the input enters."""
        return cast("DenseBlock", self.blocks[0]).linear

    def forward(self, h: torch.Tensor | Counts, covariates: torch.Tensor) -> torch.Tensor:
        """Map (n, n_in), or the counts of n cells, to (n, n_hidden)."""
        for block in self.blocks:
            h = block(h, covariates)
        return cast("torch.Tensor", h)
