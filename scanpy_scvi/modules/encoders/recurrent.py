"""One layer of codes, read once or several times with zeros filled in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from ..cells import Cells, Dimensions, covariate_design
from ..mlp import CovariateLinear
from ..weight_price import weight_price
from .base import Encoder, LatentPosterior

if TYPE_CHECKING:
    from collections.abc import Callable

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"relu": torch.relu, "sigmoid": torch.sigmoid}


class RecurrentEncoder(Encoder):
    """Codes h_t = f(W y_t [+ V s] + b), t = 1 to `n_steps`; z is all of them side by side, a point.

    y_1 = log(1 + c x), c = `input_total` over the cell's total. Between steps the zeros of y, and they alone, are
    filled with what the codes suggest,

        y_{t+1} = y_1 + 1[y_1 = 0] (U relu(P h_t + p) + u),    P: codes to `n_imputer` units,

    so that later codes are of counts without dropouts. With one step it is a layer of codes, f a sigmoid in Talwar et
    al. 2018, Sci Rep 8:16329. Deng et al. 2019, Nat Methods 16:311, fill from the decoded h_t rather than from h_t.
    """

    def __init__(
        self,
        dims: Dimensions,
        *,
        n_latent: int,
        n_steps: int = 1,
        n_imputer: int = 64,
        activation: Literal["relu", "sigmoid"] = "relu",
        encode_covariates: bool = False,
        input_total: float | None = None,
        l2: float = 0.0,
    ) -> None:
        super().__init__()
        if n_latent % n_steps:
            msg = f"n_latent is {n_latent}, which cannot be shared among {n_steps} steps"
            raise ValueError(msg)
        self.dims, self.n_steps, self.input_total, self.l2 = dims, n_steps, input_total, l2
        self.activation, self.encode_covariates = activation, encode_covariates
        width = n_latent // n_steps
        self.code = CovariateLinear(dims.n_genes, width, dims.n_covariates if encode_covariates else 0)
        self.down = CovariateLinear(width, n_imputer) if n_steps > 1 else None
        self.up = CovariateLinear(n_imputer, dims.n_genes) if n_steps > 1 else None

    @property
    def gives_points(self) -> bool:
        """Always."""
        return True

    def forward(self, cells: Cells) -> LatentPosterior:
        """Codes of all steps for n cells, (n, n_latent)."""
        scale = self.input_scale(cells)
        counts = cells.counts if scale is None else cells.counts.scaled(scale)
        covariates = covariate_design(cells, self.dims) if self.encode_covariates else None
        codes = [ACTIVATIONS[self.activation](self.code(counts, covariates))]
        if self.down is not None and self.up is not None:
            y = counts.log1p()
            for _ in range(1, self.n_steps):
                filled = torch.where(y > 0, y, self.up(torch.relu(self.down(codes[-1]))))
                codes.append(ACTIVATIONS[self.activation](self.code(filled, covariates)))
        return LatentPosterior(torch.cat(codes, dim=1), None)

    def penalty(self) -> torch.Tensor | None:
        """l2 / 2 times the sum of all squared weights."""
        return weight_price(self, self.l2)

    def extra_repr(self) -> str:
        """Steps and activation, for printing."""
        return f"n_steps={self.n_steps}, activation={self.activation}"
