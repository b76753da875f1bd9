"""An examination as text for people and as plain data for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..store.checks import count_layers
from ..store.finding import as_text, worst

if TYPE_CHECKING:
    from anndata import AnnData

    from ..store.examine import Examination

MOST_NAMES = 10
"""Names of cells or genes that are listed at most."""


def report_text(adata: AnnData, found: Examination) -> str:
    """One heading and one line for each finding."""
    return as_text(f"check of {adata.n_obs:,} cells x {adata.n_vars:,} genes", found.findings)


def report_dict(adata: AnnData, found: Examination, layer: str | None) -> dict[str, Any]:
    """Plain data under stable keys; None where something could not be read."""
    return {
        "level": worst(found.findings),
        "findings": [f._asdict() for f in found.findings],
        "counts": _counts(adata, found, layer),
        "cells": _cells(adata, found),
        "genes": _genes(adata, found),
        "batches": _batches(found),
        "confounding": _confounding(found),
        "cost": _cost(found),
    }


def _counts(adata: AnnData, found: Examination, layer: str | None) -> dict[str, Any]:
    seen = found.seen
    valid = seen is not None and seen.defect is None
    return {
        "layer": layer,
        "are_counts": valid,
        "largest": seen.largest if seen is not None and valid else None,
        "zeros": seen.zeros if seen is not None and valid else None,
        "count_layers": count_layers(adata),
    }


def _cells(adata: AnnData, found: Examination) -> dict[str, Any]:
    facts: dict[str, Any] = dict.fromkeys(("n_empty", "n_empty_modelled", "empty_modelled"))
    facts |= dict.fromkeys(("library_min", "library_median", "library_max", "n_extreme", "extreme"))
    seen, libraries = found.seen, found.libraries
    if seen is not None and seen.defect is None:
        empty = np.flatnonzero(seen.modelled_total <= 0)
        facts |= {"n_empty": int((seen.cell_total <= 0).sum()), "n_empty_modelled": len(empty)}
        facts["empty_modelled"] = _names(adata.obs_names, empty)
        if libraries is not None:
            extreme = np.flatnonzero(seen.modelled_total > 0)[libraries.far | libraries.few]
            totals = seen.modelled_total[seen.modelled_total > 0]
            facts |= {"library_min": float(totals.min()), "library_max": float(totals.max())}
            facts |= {"library_median": float(np.median(totals))}
            facts |= {"n_extreme": len(extreme), "extreme": _names(adata.obs_names, extreme)}
    return {"n": adata.n_obs, **facts}


def _genes(adata: AnnData, found: Examination) -> dict[str, Any]:
    facts: dict[str, Any] = dict.fromkeys(("n_modelled", "n_empty", "n_empty_modelled", "empty_modelled"))
    if found.gene_mask is not None:
        facts["n_modelled"] = int(found.gene_mask.sum())
        if found.seen is not None and found.seen.defect is None:
            empty = found.seen.gene_cells == 0
            facts |= {"n_empty": int(empty.sum()), "n_empty_modelled": int((empty & found.gene_mask).sum())}
            facts["empty_modelled"] = _names(adata.var_names, np.flatnonzero(empty & found.gene_mask))
    return {"n": adata.n_vars, **facts}


def _batches(found: Examination) -> dict[str, Any]:
    if found.batch is None:
        return {"key": None, "names": [], "n_cells": []}
    sizes = np.bincount(found.batch.codes, minlength=len(found.batch.names))
    return {"key": found.batch.key, "names": list(found.batch.names), "n_cells": sizes.tolist()}


def _confounding(found: Examination) -> list[dict[str, Any]]:
    return [
        {"column": column, "cramers_v": a.cramers_v, "n_groups": a.n_labels, "n_in_one_batch": len(a.confined)}
        for column, a in found.confounding.items()
    ]


def _cost(found: Examination) -> dict[str, Any]:
    keys = ("max_epochs", "seconds_per_epoch", "seconds")
    sizes = ("memory", "counts", "parameters", "minibatch", "normalized", "free")
    facts: dict[str, Any] = {key: getattr(found.cost, key, None) for key in keys}
    return facts | {f"{key}_bytes": getattr(found.cost, key, None) for key in sizes}


def _names(index: Any, positions: np.ndarray) -> list[str]:
    return [str(name) for name in index[positions[:MOST_NAMES]]]
