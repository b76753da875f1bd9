"""Gene sets, from whatever users have them in."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from .checks import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

FIELDS_BEFORE_GENES = 2
"""Name and description, in a line of a GMT file."""


class GeneSets(NamedTuple):
    """Gene sets over genes that are modelled."""

    names: list[str]
    gene: np.ndarray
    """Position among the modelled genes, (n_links,)."""
    set_code: np.ndarray
    """Position among the names, (n_links,), rising."""
    scale: np.ndarray
    """Weight of the gene in its set, (n_links,), float32, with the same sum of squares in every set.

    So all sets begin alike, whatever their size; and of two sets that could explain the same, the one with fewer genes
    beside it learns faster.
    """


def read_gene_sets(gene_sets: object) -> pd.DataFrame:
    """Read gene sets into a table with the columns `source`, `target` and `weight`, sets in their order.

    Parameters
    ----------
    gene_sets
        Path of a GMT file; a mapping from names to genes; or a table with `source`, `target` and possibly `weight`.
    """
    if isinstance(gene_sets, pd.DataFrame):
        table = _from_table(gene_sets)
    elif isinstance(gene_sets, Mapping):
        table = _long(gene_sets)
    elif isinstance(gene_sets, (str, os.PathLike)):
        table = _long(read_gmt(gene_sets))
    else:
        msg = (
            f"`gene_sets` is of type {type(gene_sets).__name__}, but the path of a GMT file, a dict from names to "
            "genes, or a table with the columns 'source' and 'target' was expected."
        )
        raise TypeError(msg)
    if table.empty:
        msg = "`gene_sets` holds no gene. Pass at least one set with genes."
        raise ValueError(msg)
    return table


def read_gmt(path: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Read a GMT file: in each line a name, a description and genes, separated by tabs."""
    path = Path(path)
    if not path.is_file():
        msg = f"`gene_sets` is {str(path)!r}, but there is no such file. Pass the path of a GMT file."
        raise FileNotFoundError(msg)
    sets: dict[str, list[str]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fields = [field.strip() for field in line.split("\t")]
        if not line.strip():
            continue
        if len(fields) <= FIELDS_BEFORE_GENES or not fields[0]:
            msg = (
                f"Line {number} of {path.name} is not of a GMT file, which has a name, a description and genes in each "
                "line, separated by tabs."
            )
            raise ValueError(msg)
        if fields[0] in sets:
            msg = f"The set {fields[0]!r} is in {path.name} twice. Names must be unique."
            raise ValueError(msg)
        sets[fields[0]] = [gene for gene in fields[FIELDS_BEFORE_GENES:] if gene]
    return sets


def select_gene_sets(table: pd.DataFrame, genes: Sequence[str], *, min_genes: int) -> GeneSets:
    """Keep the sets with at least `min_genes` of the genes, and number both.

    Raises
    ------
    ValueError
        Where no set is left.
    """
    position = pd.Index(genes).get_indexer(table["target"])
    found = table[position >= 0].assign(gene=position[position >= 0])
    sizes = found.groupby("source", sort=False)["gene"].size()
    names = [name for name in dict.fromkeys(table["source"]) if sizes.get(name, 0) >= min_genes]
    if not names:
        most = int(sizes.max()) if len(sizes) else 0
        msg = (
            f"None of the {table['source'].nunique()} gene sets has {min_genes} of the {len(genes)} genes to model, "
            f"the largest {most}. Are the sets' genes ({listed(table['target'][:2])}) named "
            f"as those in `adata.var_names` ({listed(genes[:2])})? Else lower `min_genes`."
        )
        raise ValueError(msg)
    kept = found[found["source"].isin(names)]
    code = pd.Index(names).get_indexer(kept["source"])
    kept = kept.assign(code=code).sort_values(["code", "gene"], kind="stable")
    squares = (kept["weight"] ** 2).groupby(kept["code"]).transform("sum")
    typical = kept["code"].value_counts().median()
    scale = (kept["weight"] * np.sqrt(typical / squares)).to_numpy(np.float32)
    return GeneSets(names, kept["gene"].to_numpy(np.int64), kept["code"].to_numpy(np.int64), scale)


def _long(sets: Mapping[Any, Any]) -> pd.DataFrame:
    """One row for each gene of each set."""
    rows = []
    for name, genes in sets.items():
        if isinstance(genes, str) or not isinstance(genes, Iterable):
            msg = f"`gene_sets[{name!r}]` is {genes!r}, but a list of genes was expected."
            raise TypeError(msg)
        rows += [(str(name), str(gene)) for gene in dict.fromkeys(genes)]
    return pd.DataFrame(rows, columns=["source", "target"]).assign(weight=1.0)


def _from_table(table: pd.DataFrame) -> pd.DataFrame:
    """Check a table of links, one row each."""
    lacking = {"source", "target"} - set(table.columns)
    if lacking:
        msg = (
            f"The table in `gene_sets` has the columns {listed(map(str, table.columns))}, but lacks "
            f"{listed(sorted(lacking))}. It should have the set in 'source' and the gene in 'target'."
        )
        raise ValueError(msg)
    links = pd.DataFrame({"source": table["source"].astype(str), "target": table["target"].astype(str)})
    links["weight"] = table["weight"].to_numpy(np.float64) if "weight" in table else 1.0
    twice = links.duplicated(["source", "target"])
    if twice.any():
        first = links[twice].iloc[0]
        msg = f"The gene {first['target']!r} is in the set {first['source']!r} twice. Drop duplicates from the table."
        raise ValueError(msg)
    useless = ~np.isfinite(links["weight"]) | (links["weight"] == 0)
    if useless.any():
        first = links[useless].iloc[0]
        msg = (
            f"The weight of gene {first['target']!r} in the set {first['source']!r} is {first['weight']:g}, but a "
            "finite number other than 0 was expected. Drop the row."
        )
        raise ValueError(msg)
    return links.reset_index(drop=True)
