"""What a fit with perturbations stored, read and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from ._fits import stored_fit

if TYPE_CHECKING:
    from anndata import AnnData

TABLES = ("perturbations", "effects", "targets")
OF_TARGETS = ("shift", "standard_error", "probability", "q_value", "evidence")
"""Columns of the table of targets that have a number for every perturbation and latent."""
NULLS = ("null_shifts", "null_errors", "null_cells")


class Nulls(NamedTuple):
    """Pseudo-perturbations that the control was split into."""

    shifts: np.ndarray
    """(n_nulls, n_latent)."""
    errors: np.ndarray
    cells: np.ndarray
    """(n_nulls,)."""


class PerturbationFit(NamedTuple):
    """Tables of a fit, and what its gates followed."""

    key: str
    perturbations: pd.DataFrame
    effects: pd.DataFrame
    targets: pd.DataFrame
    nulls: Nulls | None
    """None where there was no control."""
    min_shift: float
    min_share: float
    min_errors: float
    gate_density: np.ndarray
    """Of each epoch with gates; may be empty."""
    perturbation_key: str
    """Column of `obs`."""
    control: tuple[str, ...]
    """Labels that stand for no perturbation."""

    def count_null_targets(self) -> int:
        """How many of the parts of the control the rule would give a target."""
        from ..numerics.shift_rule import ShiftRule  # here, since numerics brings numba

        if self.nulls is None:
            return 0
        rule = ShiftRule(self.min_shift, self.min_share, self.min_errors)
        return int(rule.opens(self.nulls.shifts, self.nulls.errors).any(1).sum())

    def wide(self, column: str) -> np.ndarray:
        """A column of the table of targets, perturbations x latents, in the order of the table of effects."""
        table = self.targets.astype({"perturbation": str, "latent": str})
        values = table.pivot_table(index="perturbation", columns="latent", values=column, dropna=False, sort=False)
        found: np.ndarray = values.reindex(index=self.names, columns=self.latents).to_numpy(float)
        return found

    @property
    def names(self) -> list[str]:
        """Names of the perturbations."""
        return [str(name) for name in self.effects.index]

    @property
    def latents(self) -> list[str]:
        """Names of the latent dimensions."""
        return [str(name) for name in self.effects.columns]


def perturbation_fit(adata: AnnData, key: str) -> PerturbationFit:
    """Return the tables under ``adata.uns[key]``, or raise a KeyError that lists the keys of such fits."""
    entry = stored_fit(adata, key)
    if not all(isinstance(entry.get(name), pd.DataFrame) for name in TABLES):
        have = [k for k, v in adata.uns.items() if hasattr(v, "get") and isinstance(v.get("effects"), pd.DataFrame)]
        advice = f"Pass key={' or key='.join(map(repr, have))}" if have else "Run sv.tl.svae(adata, …) first"
        msg = f"adata.uns[{key!r}] is a fit without perturbations. {advice}."
        raise KeyError(msg)
    perturbations, effects, targets = (entry[name] for name in TABLES)
    missing = {"perturbation", "latent", *OF_TARGETS} - set(targets)
    if missing or not perturbations.index.equals(effects.index):
        what = f"lacks the column {min(missing)!r}" if missing else "does not have the rows of 'perturbations'"
        table = "targets" if missing else "effects"
        msg = f"adata.uns[{key!r}][{table!r}] {what}. It is damaged."
        raise ValueError(msg)
    rule, params = entry.get("rule", {}), entry.get("params", {})
    nulls = Nulls(*(np.asarray(entry[name], float) for name in NULLS)) if set(NULLS) <= set(entry) else None
    return PerturbationFit(
        key=key,
        perturbations=perturbations,
        effects=effects,
        targets=targets,
        nulls=nulls if nulls is not None and len(nulls.cells) else None,
        min_shift=float(rule.get("min_shift", np.nan)),
        min_share=float(rule.get("min_share", 0.0)),
        min_errors=float(rule.get("min_errors", np.nan)),
        gate_density=np.asarray(entry.get("gate_density", []), float),
        perturbation_key=str(params.get("labels_key", params.get("perturbation_key", ""))),
        control=_strings(params.get("control", "")),
    )


def known(fit: PerturbationFit, name: str, names: list[str], what: str) -> int:
    """Position of a name, or a KeyError that lists what there is."""
    if str(name) in names:
        return names.index(str(name))
    listed = ", ".join(map(repr, names[:10])) + (", …" if len(names) > 10 else "")
    msg = f"adata.uns[{fit.key!r}] has no {what} {name!r}, but {listed}."
    raise KeyError(msg)


def _strings(value: Any) -> tuple[str, ...]:
    """One name or several; the empty name is none."""
    return tuple(str(name) for name in np.atleast_1d(value) if str(name))
