"""Which perturbations a label of a cell stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from .checks import listed, require_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad

SEPARATORS = (" || ", "+")
"""Between the perturbations of a combination; the first is that of CELLxGENE."""
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


def names_of_table(adata: ad.AnnData, key: str, unperturbed: str) -> pd.Categorical:
    """Names of the perturbations of each cell, `"A+B"`, from a table of cells x perturbations in `obsm`.

    Parameters
    ----------
    adata
        Cells.
    key
        Key of a DataFrame in `obsm`; what is not zero is there.
    unperturbed
        Name for cells that have none.

    Raises
    ------
    TypeError, ValueError
        Where that is no such table, or a name could be taken for a combination.
    """
    table = adata.obsm[key]
    where = f"`adata.obsm[{key!r}]`"
    if not isinstance(table, pd.DataFrame):
        msg = (
            f"{where} is of type {type(table).__name__}, but a DataFrame whose columns name the perturbations was "
            "expected."
        )
        raise TypeError(msg)
    names = [str(name) for name in table.columns]
    joined = [name for name in names if len(_parts(name)) > 1]
    if joined:
        msg = f"{where} has the column {joined[0]!r}, which reads like several perturbations. Rename it."
        raise ValueError(msg)
    cell, column = _nonzero(table, where)
    combined = np.bincount(cell, minlength=len(table)) > 1
    unclear = [names[k] for k in np.unique(column[combined[cell]]) if any(part in names[k] for part in SEPARATORS)]
    if unclear:
        msg = f"{where} has the column {unclear[0]!r}, which could not be told apart in a combination. Rename it."
        raise ValueError(msg)
    ends = np.cumsum(np.bincount(cell, minlength=len(table)))
    of_cell = [SEPARATORS[-1].join(names[k] for k in some) for some in np.split(column, ends[:-1])]
    labels = [label or unperturbed for label in of_cell]
    return pd.Categorical(labels, categories=list(dict.fromkeys(labels)))


def _nonzero(table: pd.DataFrame, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows, rising, and columns of what is not zero; one column at a time, as there may be thousands."""
    found = [np.empty(0, np.int64)]
    for k in range(table.shape[1]):
        values = table.iloc[:, k]
        if values.isna().any():
            msg = (
                f"{where} has missing values, but whether a cell has a perturbation must be known. Leave such cells "
                "out."
            )
            raise ValueError(msg)
        found.append(np.flatnonzero(values.to_numpy(np.float64)))
    rows, columns = np.concatenate(found), np.repeat(np.arange(table.shape[1]), [len(rows) for rows in found[1:]])
    order = np.argsort(rows, kind="stable")
    return rows[order], columns[order]


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
            return [name for part in parts for name in _parts(part)]
    return [label]
