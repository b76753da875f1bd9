"""Least squares of many rows, some at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

ROWS = 2**14
"""Rows that are in memory together."""


def parts_of_rows(n: int) -> list[slice]:
    """Ranges of `n` rows; at least one."""
    return [slice(start, start + ROWS) for start in range(0, max(n, 1), ROWS)]


def least_squares(parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Coefficients of a design that comes some rows at a time, with the values there.

    Of the rows so far only R is kept, where [design, values] = QR: it has the same least squares.
    """
    kept: np.ndarray | None = None
    for design, values in parts:
        joined = np.column_stack([design, values.astype(np.float64)])
        kept = joined if kept is None else np.asarray(np.linalg.qr(np.concatenate([kept, joined]), mode="r"))
    assert kept is not None  # for the type checker: there is always a part
    return np.linalg.lstsq(kept[:, :-1], kept[:, -1], rcond=None)[0]
