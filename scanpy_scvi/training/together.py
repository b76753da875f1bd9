"""What several processes can fit together, and what they say when they cannot go on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from .batches import smallest_minibatch
from .diagnose import Culprit

if TYPE_CHECKING:
    from ..modules.vae import VAE
    from .batches import CellTable
    from .config import TrainingConfig
    from .ranks import Ranks


def check_together(
    ranks: Ranks, model: VAE, data: CellTable, config: TrainingConfig, on_interrupt: Literal["raise", "keep"]
) -> None:
    """Raise a ValueError for what is for one process alone."""
    if not ranks.together:
        return
    if len(model.penalties):
        msg = (
            f"The fit has penalties on pairs of cells in a minibatch, of which each of {ranks.size} processes sees a "
            "part. Leave `penalties` out, or start one process."
        )
        raise ValueError(msg)
    if model.encoder.representations() is not None:
        msg = f"A model without an encoder is fitted by one process, but {ranks.size} were started."
        raise ValueError(msg)
    if on_interrupt == "keep":
        msg = (
            f"`on_interrupt` is 'keep', but {ranks.size} processes are not interrupted at the same step. Pass 'raise', "
            "or start one process."
        )
        raise ValueError(msg)
    least = smallest_minibatch(data.n_cells, config.batch_size, config.validation_size)
    if least < ranks.size:
        msg = (
            f"There are {ranks.size} processes, but the smallest minibatch has {least} cells, and each needs one. "
            "Start fewer processes, or raise `batch_size`."
        )
        raise ValueError(msg)
    check_same_data(ranks, data)  # last: it needs all processes


def check_all_go_on(ranks: Ranks, *, found: bool) -> None:
    """Raise a ValueError where some processes have a state to go on from, and others have none."""
    n_found = torch.tensor(float(found))
    ranks.sum_(n_found)
    if ranks.together and 0 < n_found.item() < ranks.size:
        msg = (
            f"{n_found.item():.0f} of {ranks.size} processes found a checkpoint. Pass a folder that all of their "
            "machines share as `checkpoint`."
        )
        raise ValueError(msg)


def check_same_data(ranks: Ranks, data: CellTable) -> None:
    """Raise a ValueError where processes have read different cells."""
    if not ranks.agree((np.array(data.n_genes), data.counts.indptr, *data.columns())):
        msg = (
            f"The {ranks.size} processes have read different data. Give all of them the same file, where they run on "
            "several machines under the same path."
        )
        raise ValueError(msg)


def said_by_first(ranks: Ranks, culprit: Culprit | None) -> Culprit:
    """The culprit of the first process that has one; at least one must."""
    if not ranks.together and culprit is not None:
        return culprit
    return Culprit(*json.loads(ranks.first_text(None if culprit is None else json.dumps(culprit))))
