"""Cells that are to be mapped to a fitted model: which genes, columns and categories they share with it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .checks import check_unique_genes, listed, require_key
from .covariates import Categories, ColumnKeys, categorical_names

if TYPE_CHECKING:
    import anndata as ad

    from .load import Fitted

LEAST_SHARE = 0.1
"""Share of the model's genes below which a query is refused."""
REFERENCE = "reference"
"""Name of the one batch of a reference that was fitted without batches, where the query brings some."""


class QueryGenes(NamedTuple):
    """The model's genes in a query."""

    positions: np.ndarray
    """Columns of the query, -1 for genes that it lacks, in the model's order."""
    var_names: tuple[str, ...]
    """Names as the query has them, and the model's own for those that it lacks."""

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of genes that the query lacks."""
        return tuple(name for name, at in zip(self.var_names, self.positions, strict=True) if at < 0)

    @property
    def n_matched(self) -> int:
        """Genes that the query has."""
        return int((self.positions >= 0).sum())


def match_genes(query: ad.AnnData, var_names: tuple[str, ...], gene_symbols: str | None) -> QueryGenes:
    """Find the model's genes in a query, by `var_names` or by a column of `var`, where the first of equal names counts.

    Raises
    ------
    ValueError
        Where none or few are found, or names are ambiguous.
    KeyError
        Where there is no such column.
    """
    check_unique_genes(query.var_names)
    names = query.var_names
    if gene_symbols is not None:
        require_key(gene_symbols, query.var.columns, where="query.var", argument="gene_symbols")
        names = query.var[gene_symbols]
    at: dict[str, int] = {}
    for i, name in enumerate(names):
        at.setdefault(str(name), i)
    positions = np.array([at.get(name, -1) for name in var_names], np.int64)
    if (positions >= 0).sum() < max(1, LEAST_SHARE * len(var_names)):
        raise ValueError(_few(query, var_names, gene_symbols, int((positions >= 0).sum())))
    pairs = zip(var_names, positions, strict=True)
    found = QueryGenes(positions, tuple(name if i < 0 else str(query.var_names[i]) for name, i in pairs))
    clash = [name for name in found.absent if name in query.var_names]
    if clash:
        msg = (
            f"The genes {listed(clash, most=3)} of the model are in `query.var_names`, but not in "
            f"`query.var[{gene_symbols!r}]`. Complete that column, so that it is clear which genes they are."
        )
        raise ValueError(msg)
    return found


def _few(query: ad.AnnData, var_names: tuple[str, ...], gene_symbols: str | None, n: int) -> str:
    """Why hardly a gene was found, and what to do."""
    where = "`query.var_names`" if gene_symbols is None else f"`query.var[{gene_symbols!r}]`"
    found = query.var_names if gene_symbols is None else query.var[gene_symbols]
    text = (
        f"{n} of the model's {len(var_names)} genes (such as {listed(var_names, most=3)}) are in {where} (such as "
        f"{listed(map(str, found), most=3)}), but at least {LEAST_SHARE:.0%} are needed."
    )
    wanted = set(var_names)
    shares = {
        c: query.var[c].astype(str).isin(wanted).sum() for c in query.var if query.var[c].dtype.kind not in "biuf"
    }
    best = max(shares, key=shares.__getitem__, default=None)
    if best is not None and shares[best] > n:
        return f"{text} Pass `gene_symbols={best!r}`, where {shares[best]} are."
    if len({name.upper() for name in wanted} & {str(name).upper() for name in found}) > max(n, len(wanted) / 2):
        return f"{text} They differ in upper and lower case: is the query of another species?"
    return f"{text} Name the genes as the reference does, or pass the column of `query.var` that does, `gene_symbols=`."


def query_columns(query: ad.AnnData, fitted: Fitted, batch_key: str | None) -> ColumnKeys:
    """Columns of the query's `obs` to read: the reference's, but for another `batch_key` and for labels without use."""
    columns = fitted.columns if fitted.model.reads_labels else replace(fitted.columns, labels_key=None)
    if batch_key is not None:
        require_key(batch_key, query.obs.columns, where="query.obs", argument="batch_key")
        columns = replace(columns, batch_key=batch_key)
    elif columns.batch_key is not None and columns.batch_key not in query.obs:
        msg = (
            f"`query.obs` has no column {columns.batch_key!r}, which names the batches of the reference. Name "
            f"that of the new cells, `query.obs[{columns.batch_key!r}] = 'new'`, or pass its column, `batch_key=`."
        )
        raise KeyError(msg)
    missing = sorted(columns.names() - set(query.obs))
    if missing:
        msg = (
            f"`query.obs` has no column {listed(missing)}, which the reference was fitted with. Add what these columns "
            "are for the new cells, or fit a reference without them."
        )
        raise KeyError(msg)
    return columns


def grown_categories(query: ad.AnnData, columns: ColumnKeys, known: Categories) -> Categories:
    """Append the query's new batches and other categories to those of the reference; new batches weigh nothing."""
    batch = known.batch
    labels = known.labels if columns.labels_key is not None else ("",)
    if columns.batch_key is not None:
        batch = (REFERENCE,) if batch == ("",) else batch
        batch += _new_names(query, columns.batch_key, "batch_key", batch)
    keys = zip(columns.categorical_covariate_keys, known.categorical, strict=True)
    return replace(
        known,
        batch=batch,
        labels=labels,
        categorical=tuple(names + _new_names(query, key, "categorical_covariate_keys", names) for key, names in keys),
        batch_weights=known.batch_weights + (0.0,) * (len(batch) - len(known.batch)),
    )


def _new_names(query: ad.AnnData, key: str, argument: str, known: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(c for c in categorical_names(query, key, argument).categories if c not in known)
