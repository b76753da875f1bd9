"""AnnData -> arrays for a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

from ..modules.cells import Dimensions
from ..numerics.sparse import CSRRows
from ..training.batches import CellTable
from ..training.sources import blocks
from .backed_counts import BackedCounts, Genes, read_stored, row_totals
from .checks import (
    MIN_CELLS,
    check_counts,
    check_empty_cells,
    check_unique_genes,
    csr_chunks,
    get_matrix,
    require_key,
)
from .covariates import (
    Categories,
    ColumnKeys,
    codes,
    continuous_values,
    covariate_codes,
    log_size_factors,
)
from .stored_rows import stored_rows

if TYPE_CHECKING:
    import anndata as ad

    from ..training.sources import CountSource


class Data(NamedTuple):
    """What a fit needs of an AnnData."""

    table: CellTable
    dims: Dimensions
    categories: Categories
    gene_mask: np.ndarray
    """Which genes are modelled, (n_vars,)."""


def read(
    adata: ad.AnnData,
    columns: ColumnKeys,
    *,
    layer: str | None,
    mask_var: np.ndarray | str | None,
) -> Data:
    """Check and read everything that a new fit needs; the user's object stays as it is."""
    if adata.n_obs < MIN_CELLS:
        msg = f"`adata` has {adata.n_obs} cells, but a fit needs at least {MIN_CELLS}. Use more cells."
        raise ValueError(msg)
    check_unique_genes(adata.var_names)
    matrix = get_matrix(adata, layer)
    gene_mask = resolve_mask(adata, mask_var)
    batch, batch_names = codes(adata, columns.batch_key, "batch_key", None)
    labels, label_names = codes(adata, columns.labels_key, "labels_key", None)
    categorical, categorical_names = covariate_codes(adata, columns.categorical_covariate_keys, None)
    continuous = continuous_values(adata, columns.continuous_covariate_keys)
    log_factor = None if columns.size_factor_key is None else log_size_factors(adata, columns.size_factor_key)
    counts = read_counts(adata, matrix, layer, gene_mask)
    totals = _totals(counts)
    check_empty_cells(totals, adata.obs_names, masked=not gene_mask.all())
    categories = Categories(
        batch=batch_names,
        labels=label_names,
        categorical=categorical_names,
        continuous_mean=tuple(continuous.mean(0).tolist()),
        continuous_sd=tuple(continuous.std(0).tolist()),
        log_size_factor_offset=0.0 if log_factor is None else float((np.log(totals) - log_factor).mean()),
        batch_weights=tuple((np.bincount(batch) / len(batch)).tolist()),
    )
    return _assemble(counts, totals, batch, labels, categorical, continuous, log_factor, categories, gene_mask)


def read_like(
    adata: ad.AnnData, columns: ColumnKeys, categories: Categories, gene_positions: np.ndarray, layer: str | None
) -> CellTable:
    """Read cells for an existing model: `gene_positions` are its genes' columns, categories follow its names.

    A gene at position -1 is not there; it counts as zero in every cell.
    """
    if not adata.n_obs:
        msg = "`adata` has no cells, but at least one was expected."
        raise ValueError(msg)
    covariates = _covariates_like(adata, columns, categories)
    counts = read_counts(adata, get_matrix(adata, layer), layer, gene_positions)
    totals = _totals(counts)
    check_empty_cells(totals, adata.obs_names, masked=(gene_positions >= 0).sum() < adata.n_vars, fitting=False)
    modelled = np.ones(len(gene_positions), bool)
    return _assemble(counts, totals, *covariates, categories, modelled).table


def read_without_counts(
    adata: ad.AnnData, columns: ColumnKeys, categories: Categories, n_genes: int, log_total: np.ndarray
) -> CellTable:
    """Cells for an existing model as if they were empty, but for their known totals."""
    none = CSRRows(np.zeros(adata.n_obs + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))
    covariates = _covariates_like(adata, columns, categories)
    return _assemble(none, np.exp(log_total), *covariates, categories, np.ones(n_genes, bool)).table


def _covariates_like(
    adata: ad.AnnData, columns: ColumnKeys, categories: Categories
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Batch, label and covariates of cells for an existing model."""
    batch, _ = codes(adata, columns.batch_key, "batch_key", categories.batch)
    labels, _ = codes(adata, columns.labels_key, "labels_key", categories.labels)
    categorical, _ = covariate_codes(adata, columns.categorical_covariate_keys, categories.categorical)
    continuous = continuous_values(adata, columns.continuous_covariate_keys, fitting=False)
    log_factor = None if columns.size_factor_key is None else log_size_factors(adata, columns.size_factor_key)
    return batch, labels, categorical, continuous, log_factor


def _totals(counts: CountSource) -> np.ndarray:
    """Total count of each cell, float64, some cells at a time so that it takes little memory."""
    if isinstance(counts, BackedCounts):
        return counts.totals
    totals = np.empty(counts.n_cells)
    for cells, rows in blocks(counts):
        totals[cells] = row_totals(rows)
    return totals


def _assemble(
    counts: CountSource,
    totals: np.ndarray,
    batch: np.ndarray,
    labels: np.ndarray,
    categorical: np.ndarray,
    continuous: np.ndarray,
    log_factor: np.ndarray | None,
    categories: Categories,
    gene_mask: np.ndarray,
) -> Data:
    scaled = (continuous - np.asarray(categories.continuous_mean)) / np.asarray(categories.continuous_sd)
    log_totals = np.log(totals)
    n_genes = int(gene_mask.sum())
    table = CellTable(
        counts=counts,
        n_genes=n_genes,
        log_total=log_totals.astype(np.float32),
        log_size_factor=(log_totals if log_factor is None else log_factor + categories.log_size_factor_offset).astype(
            np.float32
        ),
        batch=batch,
        labels=labels,
        categorical=categorical,
        continuous=scaled.astype(np.float32),
    )
    dims = Dimensions(
        n_genes=n_genes,
        n_batches=len(categories.batch),
        n_labels=len(categories.labels),
        n_categories=tuple(len(names) for names in categories.categorical),
        n_continuous=continuous.shape[1],
    )
    return Data(table, dims, categories, gene_mask)


def resolve_mask(adata: ad.AnnData, mask_var: np.ndarray | str | None) -> np.ndarray:
    """Which genes to model, as :func:`scanpy.pp.pca` decides it."""
    if isinstance(mask_var, str):
        if mask_var == "auto":
            mask_var = "highly_variable" if "highly_variable" in adata.var else None
            if mask_var is None:
                return np.ones(adata.n_vars, bool)
        require_key(mask_var, adata.var.columns, where="adata.var", argument="mask_var")
        mask = adata.var[mask_var].to_numpy()
    elif mask_var is None:
        return np.ones(adata.n_vars, bool)
    else:
        mask = np.asarray(mask_var)
    if mask.dtype != bool or mask.shape != (adata.n_vars,):
        msg = (
            f"`mask_var` gives {mask.dtype} values of shape {mask.shape}, but one bool per gene, shape "
            f"({adata.n_vars},), was expected. Pass a bool column of `adata.var` or a bool array."
        )
        raise ValueError(msg)
    if not mask.any():
        msg = "`mask_var` selects no gene, but a model needs some. Check the column, or pass `mask_var=None` for all."
        raise ValueError(msg)
    return mask


def read_counts(adata: ad.AnnData, matrix: object, layer: str | None, genes: np.ndarray) -> CountSource:
    """Counts over the selected genes (mask or positions), float32; those of a matrix on disk stay there unless few.

    Genes at position -1 have no counts.
    """
    positions = np.flatnonzero(genes) if genes.dtype == bool else genes
    stored = stored_rows(matrix, "adata.X" if layer is None else f"adata.layers[{layer!r}]")
    if stored is None:
        return _read_in_memory(adata, matrix, layer, positions)
    present = np.flatnonzero(positions >= 0)
    if len(present) == len(positions):
        chosen = Genes(None if _is_all(positions, adata.n_vars) else positions, None)
    else:
        chosen = Genes(positions[present], present.astype(np.int32))
    return read_stored(stored, chosen, lambda data: check_counts(data, adata, layer))


def _is_all(positions: np.ndarray, n_vars: int) -> bool:
    return len(positions) == n_vars and bool((positions == np.arange(n_vars)).all())


def _read_in_memory(adata: ad.AnnData, matrix: object, layer: str | None, positions: np.ndarray) -> CSRRows:
    present = np.flatnonzero(positions >= 0)
    if len(present) < len(positions):
        found = _read_in_memory(adata, matrix, layer, positions[present])
        return found._replace(indices=present.astype(np.int32)[found.indices])
    chunks = []
    for chunk in csr_chunks(matrix, None if _is_all(positions, adata.n_vars) else positions):
        check_counts(chunk.data, adata, layer)
        chunks.append(chunk.astype(np.float32, copy=False))
    csr = chunks[0] if len(chunks) == 1 else sparse.vstack(chunks, format="csr")
    return CSRRows(csr.indptr.astype(np.int64), csr.indices.astype(np.int32, copy=False), csr.data)
