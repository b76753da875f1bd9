"""A network from a representation of cells to their places on a map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from .mlp import MLP, CovariateLinear

if TYPE_CHECKING:
    from typing import Self

CHUNK = 8192
"""Cells that are placed at a time."""


class MapNetwork(nn.Module):
    r"""Places on a map, :math:`f(x) = m + s\,(A h_L + a)`, with :math:`h_0 = (x - \mu) / \sigma` and `n_layers` blocks.

    Each block is :math:`h_l = \mathrm{relu}(\mathrm{norm}(W_l h_{l-1} + b_l))`. The means :math:`\mu, m` and the scales
    :math:`\sigma, s` are those of the cells that the network is fitted to. There is one scale for all columns of each:
    a latent dimension that hardly varies should not count like the others, and a map has no preferred direction.
    """

    in_mean: torch.Tensor
    in_scale: torch.Tensor
    out_mean: torch.Tensor
    out_scale: torch.Tensor

    def __init__(self, n_in: int, n_out: int, *, n_hidden: int, n_layers: int) -> None:
        super().__init__()
        self.register_buffer("in_mean", torch.zeros(n_in))
        self.register_buffer("in_scale", torch.ones(1))
        self.register_buffer("out_mean", torch.zeros(n_out))
        self.register_buffer("out_scale", torch.ones(1))
        self.hidden = MLP(n_in, 0, n_hidden=n_hidden, n_layers=n_layers, norm="layer", dropout_rate=0.0)
        self.output = CovariateLinear(n_hidden, n_out)

    def standardise(self, x: np.ndarray, y: np.ndarray) -> Self:
        """Take means and scales from cells at `x` whose places are `y`."""
        for name, values in (("in", x), ("out", y)):
            mean, scale = mean_and_scale(values)
            getattr(self, f"{name}_mean").copy_(torch.from_numpy(mean))
            getattr(self, f"{name}_scale").fill_(scale)
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Places of cells, in units of the map."""
        h = self.hidden((x - self.in_mean) / self.in_scale, x[:, :0])
        return self.out_mean + self.out_scale * self.output(h)

    @torch.no_grad()
    def place(self, x: np.ndarray) -> np.ndarray:
        """Places of many cells, some at a time, float32."""
        device = self.output.weight.device
        chunks = (x[start : start + CHUNK] for start in range(0, len(x), CHUNK))
        places = [self(torch.tensor(chunk, dtype=torch.float32, device=device)).cpu().numpy() for chunk in chunks]
        return np.concatenate([np.empty((0, len(self.out_mean)), np.float32), *places])


def mean_and_scale(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean of each column, and the root of their mean variance; 1 where nothing varies."""
    values = np.asarray(values, np.float64)
    scale = float(np.sqrt(values.var(0).mean()))
    return values.mean(0), scale if scale > 0 else 1.0
