"""Shifts of perturbations as the tables of `uns[key]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence


class ShiftedBy(NamedTuple):
    """What is known of perturbations, each (n_perturbations, n_latent)."""

    names: Sequence[str]
    """Names of the perturbations."""
    n_cells: np.ndarray
    """(n_perturbations,)."""
    shift: np.ndarray
    """As estimated, also where no gate is open."""
    standard_error: np.ndarray
    probability: np.ndarray
    """Of an open gate."""
    q_value: np.ndarray
    is_target: np.ndarray
    effect: np.ndarray
    """Shift that counts; 0 where the gate is closed."""


def latent_names(n_latent: int) -> list[str]:
    """Names of latent dimensions: their numbers."""
    return [str(j) for j in range(n_latent)]


def shift_tables(found: ShiftedBy, response: np.ndarray, gain: np.ndarray) -> dict[str, pd.DataFrame]:
    """All of them by their keys in `uns[key]`."""
    return {
        "perturbations": perturbations_table(found, response, gain),
        "effects": effects_table(found),
        "targets": targets_table(found),
    }


def effects_table(found: ShiftedBy) -> pd.DataFrame:
    """Perturbations x latent dimensions: the shifts that count."""
    return pd.DataFrame(found.effect, index=list(found.names), columns=latent_names(found.effect.shape[1]))


def targets_table(found: ShiftedBy) -> pd.DataFrame:
    """One row for each perturbation and latent dimension."""
    n, p = found.shift.shape
    cells = np.repeat(found.n_cells.astype(np.int64), p)
    return pd.DataFrame(
        {
            "perturbation": pd.Categorical.from_codes(np.repeat(np.arange(n), p), list(found.names)),
            "latent": pd.Categorical.from_codes(np.tile(np.arange(p), n), latent_names(p)),
            "shift": found.shift.ravel(),
            "standard_error": found.standard_error.ravel(),
            "probability": found.probability.ravel().astype(np.float32),
            "evidence": (cells * found.shift.ravel().astype(np.float64) ** 2 / 2).astype(np.float32),
            "q_value": found.q_value.ravel(),
            "is_target": found.is_target.ravel(),
            "n_cells": cells,
        },
        index=pd.RangeIndex(n * p).astype(str),
    )


def perturbations_table(found: ShiftedBy, response: np.ndarray, gain: np.ndarray) -> pd.DataFrame:
    """One row for each perturbation; `response` and `gain` are means over its cells, and over those held out."""
    return pd.DataFrame(
        {
            "n_cells": found.n_cells.astype(np.int64),
            "n_targets": found.is_target.sum(1).astype(np.int64),
            "effect": np.linalg.norm(found.effect, axis=1).astype(np.float32),
            "response": response.astype(np.float32),
            "gain": gain.astype(np.float32),
        },
        index=list(found.names),
    )


def stacked(known: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Rows of two such tables, one below the other; their texts may be categories."""
    joined = pd.concat([known.astype(_texts(known)), new.astype(_texts(new))])
    return joined.reset_index(drop=True) if "perturbation" in joined else joined


def _texts(table: pd.DataFrame) -> dict[str, type]:
    return {name: str for name in table.columns if isinstance(table[name].dtype, pd.CategoricalDtype)}
