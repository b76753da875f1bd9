"""Latent library sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..cells import Cells, Dimensions, covariate_design
from ..mlp import MLP, CovariateLinear, Norm
from ..shared import normal_like
from .base import Library, LibraryOutput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..growth import Growth

VAR_FLOOR = 1e-4


def library_prior(log_total: np.ndarray, batch: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and variance (divisor n) of log totals in each batch; the variance of a one-cell batch is floored.

    Lopez et al. 2018, Nat Methods 15:1053; Shi 2021, arXiv 2101.00650, eq. 62.
    """
    return _moments([log_total[batch == b] for b in range(int(batch.max()) + 1)])


def _moments(log_totals: Sequence[np.ndarray]) -> tuple[list[float], list[float]]:
    groups = [g.astype(np.float64) for g in log_totals]
    return [float(g.mean()) for g in groups], [max(float(g.var()), VAR_FLOOR) for g in groups]


class LogNormalLibrary(Library):
    """Latent library: log l_n ~ N(m_s, v_s) with the mean and variance of log totals in batch s.

    The posterior is q(log l | x) = N(m(h), exp(a(h)) + 1e-4), h = MLP(log(1 + x)[, s]), and

        KL = 1/2 [log(v_s / v) + (v + (m - m_s)^2) / v_s - 1],

    which is also the KL of the log-normals, as both are images under one bijection. `m_s`, `v_s` are `prior_mean`,
    `prior_var`. The covariates s enter the posterior only with `encode_covariates`.
    Lopez et al. 2018, Nat Methods 15:1053.
    """

    prior_mean: torch.Tensor
    prior_var: torch.Tensor

    def __init__(
        self,
        dims: Dimensions,
        *,
        prior_mean: Sequence[float],
        prior_var: Sequence[float],
        n_hidden: int,
        dropout_rate: float,
        norm: Norm,
        norm_momentum: float = 0.1,
        n_layers: int = 1,
        encode_covariates: bool = False,
    ) -> None:
        super().__init__()
        self.dims = dims
        self.encode_covariates = encode_covariates
        if not len(prior_mean) == len(prior_var) == dims.n_batches:
            msg = f"{len(prior_mean)} prior means and {len(prior_var)} variances for {dims.n_batches} batches"
            raise ValueError(msg)
        self.register_buffer("prior_mean", torch.tensor(prior_mean, dtype=torch.float32))
        self.register_buffer("prior_var", torch.tensor(prior_var, dtype=torch.float32))
        self.mlp = MLP(
            dims.n_genes,
            dims.n_covariates if encode_covariates else 0,
            n_hidden=n_hidden,
            n_layers=n_layers,
            norm=norm,
            norm_momentum=norm_momentum,
            dropout_rate=dropout_rate,
        )
        self.location = CovariateLinear(n_hidden, 1)
        self.log_var = CovariateLinear(n_hidden, 1)

    def posterior(self, cells: Cells) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance of q(log l | x), each (n,)."""
        covariates = covariate_design(cells, self.dims) if self.encode_covariates else cells.continuous[:, :0]
        h = self.mlp(cells.counts, covariates)
        return self.location(h).squeeze(1), torch.exp(self.log_var(h)).squeeze(1) + VAR_FLOOR

    def forward(self, cells: Cells) -> LibraryOutput:
        """One draw of log l, and the KL to the batch's prior."""
        m, v = self.posterior(cells)
        m_s, v_s = self.prior_mean[cells.batch], self.prior_var[cells.batch]
        kl = 0.5 * (torch.log(v_s / v) + (v + (m - m_s).square()) / v_s - 1)
        return LibraryOutput(m + v.sqrt() * normal_like(m), kl)

    def mean(self, cells: Cells) -> torch.Tensor:
        """Posterior mean of log l, (n,)."""
        return self.posterior(cells)[0]

    @staticmethod
    def grown_options(options: Mapping[str, Any], growth: Growth) -> dict[str, Any]:
        """Append the priors of new batches, read off their own cells."""
        mean, var = _moments(growth.log_totals)
        return {**options, "prior_mean": [*options["prior_mean"], *mean], "prior_var": [*options["prior_var"], *var]}

    @torch.no_grad()
    def grow(self, fitted: LogNormalLibrary, growth: Growth) -> dict[str, torch.Tensor]:
        """Keep the priors of old batches; those of new ones are given by the options and not learned."""
        n = growth.old.n_batches
        self.prior_mean[:n] = fitted.prior_mean
        self.prior_var[:n] = fitted.prior_var
        return {}

    @torch.no_grad()
    def set_log_mean(self, log_mean: float) -> None:
        """Start the posterior at the average cell."""
        self.location.bias.fill_(log_mean)
