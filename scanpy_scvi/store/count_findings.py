"""What a survey of the matrix says about counts, cells and genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .checks import listed
from .finding import Finding

if TYPE_CHECKING:
    from .survey import Survey

FEW_ONES = 0.05
"""Share of ones among the non-zero counts below which they are reads rather than molecules."""
EVEN_TOTALS = 0.02
"""Coefficient of variation of the totals below which they have been made equal."""
RARE = 3
"""A gene seen in fewer cells says nothing about them."""


def matrix_name(layer: str | None) -> str:
    """Return how the user would write the matrix."""
    return "adata.X" if layer is None else f"adata.layers[{layer!r}]"


def count_findings(seen: Survey, layer: str | None) -> list[Finding]:
    """Say whether the matrix holds raw counts of molecules."""
    if seen.defect is not None:
        return [Finding("error", "counts", seen.defect)]
    name = f"`{matrix_name(layer)}`"
    findings = []
    if seen.largest == 1:
        message = f"{name} holds zeros and ones only: if it was binarised, pass the counts themselves"
        findings.append(Finding("warning", "counts", message))
    elif seen.n_ones < FEW_ONES * seen.n_entries:
        message = (
            f"{name} has few ones ({seen.n_ones / seen.n_entries:.1%} of its non-zero counts), as reads have and "
            "molecules (UMIs) do not: see with `scanpy_scvi.pp.fit_dispersion` whether they ask for "
            "`likelihood='zinb'`."
        )
        findings.append(Finding("note", "counts", message))
    totals = seen.cell_total[seen.cell_total > 0]
    if len(totals) > 1 and totals.std() < EVEN_TOTALS * totals.mean():
        message = (
            f"all cells of {name} have nearly the same total ({np.median(totals):,.0f}), as after normalising and "
            "rounding; raw counts were expected. Pass the layer that holds them with `layer=`."
        )
        findings.append(Finding("warning", "counts", message))
    holds = f"{name} holds whole numbers up to {seen.largest:,.0f}, {seen.zeros:.0%} zeros"
    return findings or [Finding("ok", "counts", holds)]


def gene_count_findings(seen: Survey, gene_mask: np.ndarray, var_names: np.ndarray) -> list[Finding]:
    """Name modelled genes that are in no or hardly any cell."""
    rare = np.flatnonzero(gene_mask & (seen.gene_cells < RARE))
    if not len(rare):
        return []
    empty = np.flatnonzero(gene_mask & (seen.gene_cells == 0))
    which = f", {len(empty)} in none" if len(empty) else ""
    message = (
        f"{len(rare)} of {int(gene_mask.sum()):,} modelled genes have counts in fewer than {RARE} cells{which} (first: "
        f"{listed(var_names[empty if len(empty) else rare], most=3)}): they do no harm and no good, "
        f"`sc.pp.filter_genes(adata, min_cells={RARE})` removes them."
    )
    return [Finding("note", "genes", message)]
