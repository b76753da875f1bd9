"""All that can be said about an AnnData before a fit: everything `read` would raise, and what else is odd."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..modules.cells import Dimensions
from .checks import MIN_CELLS, check_empty_cells, check_is_object, check_unique_genes, get_matrix
from .confounding import Association, association, confounding_finding, same_grouping_finding
from .cost import Cost, CostOptions, estimate_cost
from .cost_findings import cost_findings
from .count_findings import count_findings, gene_count_findings
from .covariate_findings import categorical_findings, continuous_findings, size_factor_findings
from .covariates import ColumnKeys, codes, continuous_values, covariate_codes, log_size_factors
from .finding import Finding
from .groupings import groupings, likely_batch
from .keys import Keys
from .outliers import Libraries, judge_libraries, library_findings
from .preflight import batch_findings, gene_findings
from .read import read, resolve_mask
from .stored_rows import stored_rows
from .survey import Survey, survey
from .write import check_free

if TYPE_CHECKING:
    from collections.abc import Callable

    import anndata as ad

TOPICS = ("counts", "cells", "libraries", "genes", "batches", "confounding", "covariates", "results", "cost")
"""What findings are about, in the order of the report."""


class Grouping(NamedTuple):
    """A categorical column of `obs`."""

    key: str
    codes: np.ndarray
    names: tuple[str, ...]


@dataclass
class Examination:
    """Findings and the facts behind them; what could not be read is None."""

    findings: list[Finding] = field(default_factory=list)
    gene_mask: np.ndarray | None = None
    seen: Survey | None = None
    libraries: Libraries | None = None
    batch: Grouping | None = None
    confounding: dict[str, Association] = field(default_factory=dict)
    """Association of the batch with other columns, by column."""
    label_names: tuple[str, ...] = ()
    cost: Cost | None = None

    def attempt(self, topic: str, check: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a check; what it raises becomes a finding, and the result None."""
        try:
            return check(*args, **options)
        except (ValueError, TypeError, KeyError) as error:
            self.findings.append(Finding("error", topic, str(error.args[0])))
            return None


def examine(
    adata: ad.AnnData,
    columns: ColumnKeys,
    options: CostOptions,
    *,
    layer: str | None,
    mask_var: np.ndarray | str | None,
    key_added: str,
) -> Examination:
    """Look at everything a fit would read; nothing is changed.

    Parameters
    ----------
    adata
        The object.
    columns
        The columns of `obs` that a fit would use.
    options
        The model that is to be fitted.
    layer, mask_var, key_added
        As in `tl.scvi`.
    """
    check_is_object(adata)
    found = Examination()
    if adata.n_obs < MIN_CELLS:
        found.attempt("cells", read, adata, columns, layer=layer, mask_var=mask_var)
    _look_at_results(found, adata, key_added)
    found.attempt("genes", check_unique_genes, adata.var_names)
    found.gene_mask = found.attempt("genes", resolve_mask, adata, mask_var)
    _look_at_batches(found, adata, columns)
    n_categories, n_continuous = _look_at_covariates(found, adata, columns)
    _look_at_counts(found, adata, layer)
    _look_at_genes(found, adata, columns, options)
    if found.seen is not None and found.seen.defect is None and found.gene_mask is not None:
        n_batches = len(found.batch.names) if found.batch is not None else 1
        dims = Dimensions(int(found.gene_mask.sum()), n_batches, 1, n_categories, n_continuous)
        seen, in_file = found.seen, stored_rows(get_matrix(adata, layer), "counts") is not None
        found.cost = estimate_cost(seen.sample, adata.shape, seen.n_modelled_entries, dims, options, in_file=in_file)
        found.findings += cost_findings(found.cost)
    found.findings.sort(key=lambda f: TOPICS.index(f.topic))
    return found


def _look_at_results(found: Examination, adata: ad.AnnData, key_added: str) -> None:
    """Look for results of another kind, or of an earlier fit, under the name of this one."""
    n_errors = len(found.findings)
    found.attempt("results", check_free, adata, Keys(key_added))
    if len(found.findings) == n_errors and key_added in adata.uns:
        message = f"`uns[{key_added!r}]` holds an earlier fit, which a new one replaces; another `key_added` keeps it"
        found.findings.append(Finding("note", "results", message))


def _look_at_batches(found: Examination, adata: ad.AnnData, columns: ColumnKeys) -> None:
    """Batches, and what coincides with them."""
    key, label_key = columns.batch_key, columns.labels_key
    labels = None if label_key is None else found.attempt("confounding", codes, adata, label_key, "labels_key", None)
    found.label_names = () if labels is None else labels[1]
    if key is None:
        found.findings += likely_batch(adata)
        return
    batch = found.attempt("batches", codes, adata, key, "batch_key", None)
    if batch is None:
        return
    found.batch = Grouping(key, *batch)
    found.findings += batch_findings(batch[0], batch[1], key)
    if len(batch[1]) < 2:
        return
    if label_key is not None and labels is not None and len(labels[1]) > 1:
        found.confounding[label_key] = association(batch[0], labels[0])
        pair = confounding_finding(found.confounding[label_key], key, label_key, batch[1], labels[1])
        found.findings.append(pair)
    others = {k: association(batch[0][known], c[known]) for k, c, known in groupings(adata, skip=_used(columns))}
    found.confounding |= others
    found.findings += same_grouping_finding({k: a.cramers_v for k, a in others.items()}, key)


def _used(columns: ColumnKeys) -> set[str]:
    keys = {*columns.categorical_covariate_keys, *columns.continuous_covariate_keys}
    return keys | {k for k in (columns.batch_key, columns.labels_key, columns.size_factor_key) if k is not None}


def _look_at_covariates(found: Examination, adata: ad.AnnData, columns: ColumnKeys) -> tuple[tuple[int, ...], int]:
    """Further covariates, one by one; returns their sizes."""
    batch = None if found.batch is None or len(found.batch.names) < 2 else found.batch.codes
    names = adata.obs_names.to_numpy()
    sizes: list[int] = []
    for key in columns.categorical_covariate_keys:
        read_codes = found.attempt("covariates", covariate_codes, adata, (key,), None)
        if read_codes is not None:
            sizes.append(len(read_codes[1][0]))
            found.findings += categorical_findings(key, read_codes[0][:, 0], sizes[-1], batch)
    n_continuous = 0
    for key in columns.continuous_covariate_keys:
        values = found.attempt("covariates", continuous_values, adata, (key,))
        if values is not None:
            n_continuous += 1
            found.findings += continuous_findings(key, values[:, 0], batch, names)
    if columns.size_factor_key is not None:
        factors = found.attempt("covariates", log_size_factors, adata, columns.size_factor_key)
        if factors is not None:
            found.findings += size_factor_findings(columns.size_factor_key, factors, batch, names)
    return tuple(sizes), n_continuous


def _look_at_counts(found: Examination, adata: ad.AnnData, layer: str | None) -> None:
    """Look at counts, cells and libraries."""
    matrix = found.attempt("counts", get_matrix, adata, layer)
    if matrix is None or found.gene_mask is None or not adata.n_obs:
        return
    found.seen = seen = found.attempt("counts", survey, adata, matrix, layer, found.gene_mask)
    if seen is None:
        return
    found.findings += count_findings(seen, layer)
    if seen.defect is not None:
        return
    masked = not found.gene_mask.all()
    n_errors = len(found.findings)
    found.attempt("cells", check_empty_cells, seen.modelled_total, adata.obs_names, masked=masked)
    if len(found.findings) == n_errors:
        found.findings.append(Finding("ok", "cells", f"{adata.n_obs:,} cells, none of them empty"))
    full = np.flatnonzero(seen.modelled_total > 0)
    if len(full):
        batch = np.zeros(adata.n_obs, np.int64) if found.batch is None else found.batch.codes
        found.libraries = judge_libraries(np.log(seen.modelled_total[full]), batch[full])
        names, several = adata.obs_names.to_numpy()[full], found.batch is not None and len(found.batch.names) > 1
        found.findings += library_findings(found.libraries, names, masked=masked, with_batches=several)


def _look_at_genes(found: Examination, adata: ad.AnnData, columns: ColumnKeys, options: CostOptions) -> None:
    """How many genes, and which of them are in no cell."""
    if found.gene_mask is None:
        return
    n_genes = int(found.gene_mask.sum())
    masked = n_genes < adata.n_vars
    found.findings += gene_findings(adata.n_vars, n_genes, masked=masked, batch_key=columns.batch_key)
    if options.n_latent > n_genes:
        message = (
            f"`n_latent` is {options.n_latent}, but only {n_genes} genes are modelled, and a latent space has no use "
            f"for more dimensions. Pass `n_latent` of at most {n_genes}, or more genes."
        )
        found.findings.append(Finding("error", "genes", message))
    if found.seen is not None and found.seen.defect is None:
        found.findings += gene_count_findings(found.seen, found.gene_mask, adata.var_names.to_numpy())
