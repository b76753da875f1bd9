"""The history of a scvi-tools model: a data frame a curve, read from the pickle as data."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...training.history import EpochRecord
from .pickled import Call
from .values import as_array, as_list, as_mapping, as_number


def read_history(stored: Any) -> list[EpochRecord]:
    """One record for each epoch with a training bound; what was not kept is NaN, and none where no bound was kept."""
    try:
        curves = as_mapping(stored, "history_")
    except ValueError:
        return []
    train = _curve(curves.get("elbo_train"))
    epochs = sorted(train)
    if not epochs:
        return []
    validation, weight = _curve(curves.get("elbo_validation")), _curve(curves.get("kl_weight"))
    kl = _curve(curves.get("kl_local_validation")) or _curve(curves.get("kl_local_train"))
    nan = float("nan")
    return [
        EpochRecord(
            epoch=i + 1,
            train_elbo=-train[epoch],  # theirs are losses
            validation_elbo=-validation.get(epoch, nan),
            kl=kl.get(epoch, nan),
            kl_weight=weight.get(epoch, nan),
            learning_rate=nan,
        )
        for i, epoch in enumerate(epochs)
    ]


def _curve(frame: Any) -> dict[int, float]:
    """Values of a data frame with one column by epoch; nothing where pandas keeps it in another way."""
    try:
        manager = as_mapping(frame.state, "a curve")["_mgr"]
        blocks, axes = manager.args
        values = np.ravel(as_array(blocks[0].args[0], "a curve"))
        index = as_mapping(axes[1].args[1], "an index")
        epochs = as_list(index["data"], "an index") if "data" in index else range(len(values))
        return {int(as_number(e, "an epoch")): _number(v) for e, v in zip(epochs, values, strict=True)}
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError):
        return {}


def _number(value: Any) -> float:
    return as_number(value if isinstance(value, Call) else np.asarray(value).item(), "a value")
