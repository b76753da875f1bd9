"""What deserves a warning before a fit, from data that have passed all checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .confounding import association, confounding_finding
from .covariate_findings import size_factor_findings
from .finding import Finding, part_of
from .outliers import judge_libraries, library_findings

if TYPE_CHECKING:
    import anndata as ad

    from .covariates import ColumnKeys
    from .read import Data

__all__ = ["Finding", "batch_findings", "gene_findings", "quick_findings"]

FEW_CELLS = 50
"""A batch with fewer cells says little about its own effect."""
MANY_GENES = 5000
"""More genes than this cost time and bring noise, unless they were chosen."""
FEW_GENES = 200
"""A selection of fewer genes than this is rarely meant."""


def quick_findings(adata: ad.AnnData, data: Data, columns: ColumnKeys) -> list[Finding]:
    """Look at libraries, size factors, genes, batches and confounding, in O(cells) on top of :func:`.read.read`.

    Parameters
    ----------
    adata
        The object that was read; only names are taken from it.
    data
        What was read.
    columns
        The columns that were read.

    Returns
    -------
    Findings of the levels ok, note and warning; what is an error has been raised by `read`.
    """
    table, names = data.table, data.categories
    masked = not data.gene_mask.all()
    libraries = judge_libraries(table.log_total, table.batch)
    findings = library_findings(libraries, adata.obs_names.to_numpy(), masked=masked, with_batches=len(names.batch) > 1)
    findings += gene_findings(adata.n_vars, table.n_genes, masked=masked, batch_key=columns.batch_key)
    if columns.size_factor_key is not None:
        log_factor = table.log_size_factor - names.log_size_factor_offset
        batch = table.batch if len(names.batch) > 1 else None
        findings += size_factor_findings(columns.size_factor_key, log_factor, batch, adata.obs_names.to_numpy())
    if columns.batch_key is not None:
        findings += batch_findings(table.batch, names.batch, columns.batch_key)
        if columns.labels_key is not None and len(names.batch) > 1 and len(names.labels) > 1:
            found = association(table.batch, table.labels)
            findings.append(
                confounding_finding(found, columns.batch_key, columns.labels_key, names.batch, names.labels)
            )
    return findings


def batch_findings(batch: np.ndarray, names: tuple[str, ...], key: str) -> list[Finding]:
    """Judge the sizes of the batches."""
    sizes = np.bincount(batch, minlength=len(names))
    if len(names) == 1:
        message = f"`obs[{key!r}]` has the single batch {names[0]!r}: there is nothing to correct, `batch_key` can go."
        return [Finding("note", "batches", message)]
    same = sizes.min() == sizes.max()
    span = f"{len(names)} batches of {sizes.min():,} " + ("cells each" if same else f"to {sizes.max():,} cells")
    few = np.flatnonzero(sizes < FEW_CELLS)
    if not len(few):
        return [Finding("ok", "batches", span)]
    smallest = few[np.argsort(sizes[few], kind="stable")]
    first = ", ".join(f"{names[b]!r} with {sizes[b]}" for b in smallest[:3]) + (", …" if len(few) > 3 else "")
    message = (
        f"{part_of(len(few), len(names), f'batches of `obs[{key!r}]`')} fewer than {FEW_CELLS} cells ({first}): too "
        "few to learn what sets a batch apart. Merge them into larger batches, or remove them."
    )
    return [Finding("warning", "batches", message)]


def gene_findings(n_vars: int, n_modelled: int, *, masked: bool, batch_key: str | None) -> list[Finding]:
    """Judge how many genes are modelled."""
    if not masked and n_modelled > MANY_GENES:
        batch = f", batch_key={batch_key!r}" if batch_key is not None else ""
        message = (
            f"all {n_modelled:,} genes are modelled; a selection is faster and usually embeds better. With the counts "
            "in a layer and log-normalised values in `X`, run `sc.pp.highly_variable_genes(adata, "
            f"n_top_genes=2000{batch})`: `var['highly_variable']` is then used by itself."
        )
        return [Finding("warning", "genes", message)]
    if masked and n_modelled < FEW_GENES:
        message = (
            f"only {n_modelled} of {n_vars:,} genes are selected; 1,000 to 5,000 are usual. Select more, for instance "
            "with `sc.pp.highly_variable_genes(adata, n_top_genes=2000, …)`."
        )
        return [Finding("warning", "genes", message)]
    which = f"{n_modelled:,} of {n_vars:,} genes" if masked else f"all {n_modelled:,} genes"
    return [Finding("ok", "genes", f"{which} are modelled")]
