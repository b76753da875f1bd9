"""How a stored fit went: its settings, its epochs and the cells that it held out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, get_type_hints

from ..training.config import TrainingConfig
from .entry import place
from .typed import array, at, flag, item, mapping, names, numbers, real, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST = 2**63 - 1


class Course(NamedTuple):
    """What is read of a fit's course."""

    config: TrainingConfig
    n_epochs: int
    """Epochs to the weights that were kept."""
    n_held_out: int


def read_course(stored: Mapping[str, Any], key: str) -> Course:
    """Settings and epochs of a fit."""
    where = place(key)
    given = mapping(item(stored, "training", where), at(where, "training"))
    kinds = {name: kind for name, kind in get_type_hints(TrainingConfig).items() if name in given}
    config = TrainingConfig(
        **{name: _setting(given[name], kind, at(where, "training", name)) for name, kind in kinds.items()}
    )
    history = mapping(item(stored, "history", where), at(where, "history"))
    epochs = numbers(item(history, "epoch", at(where, "history")), at(where, "history", "epoch"))
    ended = mapping(item(stored, "convergence", where), at(where, "convergence"))
    best = whole(
        item(ended, "best_epoch", at(where, "convergence")), at(where, "convergence", "best_epoch"), 0, len(epochs)
    )
    held_out = array(item(stored, "validation_cells", where), at(where, "validation_cells"))
    return Course(config, best if config.keep_best else len(epochs), held_out.size)


def held_out_names(stored: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Names of the cells that a fit held out."""
    return names(stored.get("validation_names", ()), at(place(key), "validation_names"), unique=False)


def _setting(value: Any, kind: type, where: str) -> Any:
    if kind is bool:
        return flag(value, where)
    return whole(value, where, 0, MOST) if kind is int else real(value, where)
