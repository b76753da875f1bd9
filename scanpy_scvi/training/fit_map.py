"""The fit of a network to a map."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from .batches import hold_out, minibatches
from .optimizer import AveragedAdam
from .schedule import Schedule
from .threads import limited_threads

if TYPE_CHECKING:
    from ..modules.map_network import MapNetwork
    from .config import TrainingConfig

SOFTENING = 0.05
"""Distance, in standard deviations of the map, below which the loss is quadratic."""


class MapEpoch(NamedTuple):
    """One epoch: mean distances from where cells are, in units of the map."""

    epoch: int
    train_error: float
    validation_error: float
    """NaN where no cells are held out."""


class MapFit(NamedTuple):
    """What a fit leaves behind beside the weights in the network."""

    history: list[MapEpoch]
    best_epoch: int
    """Epoch whose weights were kept."""
    validation_rows: np.ndarray


def fit_map(
    network: MapNetwork, x: np.ndarray, y: np.ndarray, config: TrainingConfig, device: torch.device | None = None
) -> MapFit:
    r"""Fit a network in place to cells at `x` whose places on a map are `y`; leave it with its best weights.

    The loss is the mean distance :math:`\lVert f(x_n) - y_n \rVert` rather than its square. Where cells with the same
    `x` lie in two groups, its minimum is the larger group, and not a place between them where no cell is.
    """
    with limited_threads(1):
        return _FitMap(network, x, y, config, device or torch.device("cpu")).run()


class _FitMap:
    """State of one fit."""

    def __init__(
        self, network: MapNetwork, x: np.ndarray, y: np.ndarray, config: TrainingConfig, device: torch.device
    ) -> None:
        self.config = config
        self.rng = np.random.default_rng(config.random_state)
        self.train_rows, self.validation_rows = hold_out(len(x), config.validation_size, self.rng)
        self.network = network.standardise(x[self.train_rows], y[self.train_rows]).to(device)
        self.x, self.y = (torch.tensor(values, dtype=torch.float32, device=device) for values in (x, y))
        self.scale = float(network.out_scale)
        self.optimizer = AveragedAdam(network, config)
        self.schedule = Schedule(config, steps_per_epoch=len(list(minibatches(self.train_rows, config.batch_size))))

    def run(self) -> MapFit:
        history: list[MapEpoch] = []
        best, best_epoch, kept = math.inf, 0, [t.clone() for t in self.optimizer.averaged_result()]
        while len(history) < self.config.max_epochs and not self.schedule.plateau:
            record = self._epoch(len(history))
            history.append(record)
            error = record.train_error if math.isnan(record.validation_error) else record.validation_error
            if error < best or not len(self.validation_rows):
                best, best_epoch = error, record.epoch
                torch._foreach_copy_(kept, self.optimizer.averaged_result())
            self.schedule.end_epoch(record.epoch - 1, -error)
        if not math.isfinite(best):
            msg = (
                "The fit of the network to the map gave infinite or NaN distances. Are there extreme values in either?"
            )
            raise ValueError(msg)
        torch._foreach_copy_(self.optimizer.result(), kept)
        self.optimizer.release()
        self.network.eval()
        return MapFit(history, best_epoch, self.validation_rows)

    def _epoch(self, epoch: int) -> MapEpoch:
        self.network.train()
        total = 0.0
        for step, rows in enumerate(minibatches(self.train_rows, self.config.batch_size, self.rng)):
            squared = self._squared_distances(rows)
            (squared / self.scale**2 + SOFTENING**2).sqrt().mean().backward()
            self.optimizer.step(self.schedule.rate(epoch, step))
            total += float(squared.detach().sqrt().sum())
        return MapEpoch(epoch + 1, total / len(self.train_rows), self._held_out())

    @torch.no_grad()
    def _held_out(self) -> float:
        """Mean distance of held-out cells under the averaged weights."""
        if not len(self.validation_rows):
            return math.nan
        self.network.eval()
        with self.optimizer.average.swapped_in():
            return float(self._squared_distances(self.validation_rows).sqrt().mean())

    def _squared_distances(self, rows: np.ndarray) -> torch.Tensor:
        """Squared distance of each cell from where it is, in units of the map."""
        index = torch.from_numpy(rows).to(self.x.device)
        return (self.network(self.x[index]) - self.y[index]).square().sum(1)
