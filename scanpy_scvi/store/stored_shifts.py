"""What `uns[key]` says of the shifts of a fit, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from ..numerics.null_shifts import NullShifts
from .entry import place
from .typed import array, at, item, mapping, real, text, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

TABLES = ("perturbations", "effects", "targets")


class StoredShifts(NamedTuple):
    """What a fit of sparse shifts found."""

    method: str
    names: tuple[str, ...]
    """Perturbations, in the order of the prior's rows."""
    effect: np.ndarray
    """(n_perturbations, n_latent)."""
    rule: tuple[float, float, float]
    """Least shift, share and number of standard errors."""
    n_control: int
    variance: np.ndarray
    """Within labels, (n_latent,)."""
    batch_shift: np.ndarray
    """(n_batches, n_latent)."""
    null: NullShifts | None
    tables: Mapping[str, pd.DataFrame]


def read_shifts(entry: Mapping[str, Any], key: str) -> StoredShifts:
    """Read the shifts that lie in `uns[key]`.

    Raises
    ------
    ValueError, TypeError
        Where the fit has none, or they are damaged.
    """
    where = place(key)
    if not {*TABLES, "rule", "within"} <= set(entry):
        msg = f"`{where}` is no fit of `tl.svae`, which has the tables {', '.join(TABLES)}. Pass the `key` of one."
        raise ValueError(msg)
    tables = {name: entry[name] for name in TABLES}
    for name, table in tables.items():
        if not isinstance(table, pd.DataFrame):
            msg = f"`{at(where, name)}` is of type {type(table).__name__}, but a table was expected. It is damaged."
            raise TypeError(msg)
    effects = tables["effects"]
    effect = array(effects.to_numpy(), at(where, "effects"), kinds="f")
    rule, within = mapping(entry["rule"], at(where, "rule")), mapping(entry["within"], at(where, "within"))
    limits = tuple(real(item(rule, n, at(where, "rule")), at(where, "rule", n)) for n in _RULE)
    n_latent = effect.shape[1]
    variance = array(item(within, "variance", at(where, "within")), at(where, "within", "variance"), kinds="f")
    shift = array(item(within, "batch_shift", at(where, "within")), at(where, "within", "batch_shift"), kinds="f")
    if variance.shape != (n_latent,) or shift.ndim != 2 or shift.shape[1] != n_latent:
        msg = f"`{at(where, 'within')}` does not fit the {n_latent} latent dimensions of the effects. It is damaged."
        raise ValueError(msg)
    params = mapping(entry["params"], at(where, "params"))
    return StoredShifts(
        method=text(item(params, "method", at(where, "params")), at(where, "params", "method")),
        names=tuple(str(name) for name in effects.index),
        effect=effect.astype(np.float32),
        rule=limits,  # type: ignore[arg-type]  # of three
        n_control=whole(entry.get("n_control", 0), at(where, "n_control"), 0, 2**62),
        variance=variance,
        batch_shift=shift,
        null=_null(entry, where, n_latent),
        tables=tables,
    )


_RULE = ("min_shift", "min_share", "min_errors")


def _null(entry: Mapping[str, Any], where: str, n_latent: int) -> NullShifts | None:
    if "null_shifts" not in entry:
        return None
    names = ("null_shifts", "null_errors", "null_cells")
    found = [array(item(entry, name, where), at(where, name), kinds="iuf") for name in names]
    if not found[0].shape == found[1].shape == (len(found[2]), n_latent):
        msg = f"`{at(where, 'null_shifts')}` and what lies beside it differ in their sizes. It is damaged."
        raise ValueError(msg)
    return NullShifts(*found)
