"""Fitting a model: data in memory, minibatches, schedule, loop, history."""

from .batches import CellTable, minibatches
from .config import TrainingConfig
from .diagnose import NonFiniteLoss
from .fit import FitResult, fit
from .history import Convergence, EpochRecord
from .random import seeded

__all__ = [
    "CellTable",
    "Convergence",
    "EpochRecord",
    "FitResult",
    "NonFiniteLoss",
    "TrainingConfig",
    "fit",
    "minibatches",
    "seeded",
]
