"""The optimiser of a table of which a minibatch reads a few rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn

BETA1, BETA2 = 0.7, 0.9
"""A row is read once in an epoch, so its moments must forget faster than those of weights."""
EPS = 1e-3
"""Added to the root of the second moment, in nats per unit of z."""


class RowAdam:
    """Adam (Kingma and Ba 2015) for the rows that a minibatch reads; all others stand still.

    Each row counts its own steps, from which its moments are corrected and its moving average is weighted (see
    :class:`.WeightAverage`). So a step takes the time of a minibatch, however many rows there are.
    """

    def __init__(self, table: nn.Parameter, averaging: float) -> None:
        self.table = table
        self.averaging = averaging
        self.first = torch.zeros_like(table.data)
        self.second = torch.zeros_like(table.data)
        self.average = table.data.clone()
        """Moving average of every row."""
        self.n_steps = torch.zeros(len(table), device=table.device)

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move the rows that have a gradient, of the mean loss of a minibatch, and forget it."""
        sparse = self.table.grad
        if sparse is None:
            return
        self.table.grad = None
        rows = sparse._indices()[0]
        gradient = sparse._values() * len(rows)  # of a cell's own loss, whatever the size of the minibatch
        done = self.n_steps[rows]
        n = (done + 1)[:, None]
        first = torch.lerp(gradient, self.first[rows], BETA1)
        second = torch.lerp(gradient.square(), self.second[rows], BETA2)
        scale = (second / (1 - BETA2**n)).sqrt() + EPS
        z = self.table[rows] - learning_rate * first / (1 - BETA1**n) / scale
        weight = 1 / (1 + self.averaging * done[:, None]) if self.averaging else 1.0
        self.average[rows] += weight * (z - self.average[rows])
        self.table[rows], self.first[rows], self.second[rows] = z, first, second
        self.n_steps[rows] = done + 1

    @torch.no_grad()
    def put(self, rows: torch.Tensor, z: torch.Tensor) -> None:
        """Set rows and their averages, without a step."""
        self.table[rows] = z
        self.average[rows] = z

    def state(self) -> list[torch.Tensor]:
        """Every tensor that a step changes, but for the table itself."""
        return [self.average, self.first, self.second, self.n_steps]
