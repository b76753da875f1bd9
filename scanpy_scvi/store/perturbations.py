"""Which perturbations a label of a cell stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from .checks import listed, require_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad

SEPARATORS = ("+", " || ")
"""Between the perturbations of a combination; the second is that of CELLxGENE."""
USUAL_CONTROLS = frozenset(
    {"control", "ctrl", "nt", "ntc", "non-targeting", "non_targeting", "nontargeting", "unperturbed", "dmso", "vehicle"}
)
"""Names that controls mostly have, in lower case."""


class Perturbations(NamedTuple):
    """Perturbations in the labels of cells."""

    names: tuple[str, ...]
    """Sorted; no control among them."""
    label: np.ndarray
    """Label of each link, (n_links,), rising."""
    perturbation: np.ndarray
    """Perturbation of each link, (n_links,)."""
    control: np.ndarray
    """Labels that stand for no perturbation, (n_controls,)."""


def read_perturbations(labels: Sequence[str], control: str | Sequence[str] | None) -> Perturbations:
    """Take labels apart: `"A+B"` is A and B together, `"A+ctrl"` is A alone where `"ctrl"` is a control.

    Parameters
    ----------
    labels
        Names of all labels.
    control
        Labels, or parts of them, that are no perturbation; None where there is no control.

    Raises
    ------
    ValueError
        Where a control is not there, or nothing is perturbed.
    """
    controls = [] if control is None else [control] if isinstance(control, str) else list(control)
    parts = [tuple(dict.fromkeys(_parts(label))) for label in labels]
    there = {*labels, *(part for some in parts for part in some)}
    missing = [name for name in controls if name not in there]
    if missing:
        msg = f"`control` is {missing[0]!r}, but the labels are {listed(sorted(there))}. Name one of them."
        raise ValueError(msg)
    perturbed = [
        () if label in controls else tuple(part for part in some if part not in controls)
        for label, some in zip(labels, parts, strict=True)
    ]
    names = sorted({part for some in perturbed for part in some})
    if not names:
        msg = "All cells are controls, but perturbed ones were expected. Look at `perturbation_key` and `control`."
        raise ValueError(msg)
    code = {name: k for k, name in enumerate(names)}
    links = np.array([(i, code[part]) for i, some in enumerate(perturbed) for part in some], np.int64).reshape(-1, 2)
    unperturbed = np.array([i for i, some in enumerate(perturbed) if not some], np.int64)
    return Perturbations(tuple(names), links[:, 0], links[:, 1], unperturbed)


def check_perturbation_key(adata: ad.AnnData, key: str) -> None:
    """Raise a KeyError or ValueError where `obs[key]` is no column of perturbations."""
    require_key(key, adata.obs.columns, where="adata.obs", argument="perturbation_key")
    if pd.isna(adata.obs[key]).any():
        msg = (
            f"`adata.obs[{key!r}]` is missing for {int(pd.isna(adata.obs[key]).sum()):,} cells, but every cell needs a "
            "perturbation or a control's name. Cells whose guide is not known are no control: leave them out."
        )
        raise ValueError(msg)


def forgotten_control(names: Sequence[str]) -> str | None:
    """Return a perturbation whose name is that of a control, if there is one."""
    return next((name for name in names if name.lower() in USUAL_CONTROLS), None)


def _parts(label: str) -> list[str]:
    """Names in a label; the label itself where a separator has nothing on one side, as in `"Ca2+"`."""
    for separator in SEPARATORS:
        parts = [part.strip() for part in label.split(separator)]
        if len(parts) > 1 and all(parts):
            return parts
    return [label]
