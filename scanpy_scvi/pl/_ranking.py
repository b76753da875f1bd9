"""What pictures of differential expression read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import get
from ..get._rank_genes_groups import stored_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData

KEY = "rank_genes_groups_scvi"


def one_group(adata: AnnData, group: str | None, key: str) -> pd.DataFrame:
    """Return the stored table of one group; None is the only one."""
    groups = list(stored_table(adata, key)["group"].cat.categories)
    if group is None and len(groups) > 1:
        msg = f"adata.uns[{key!r}] has the groups {', '.join(map(repr, groups))}. Pass `group`."
        raise ValueError(msg)
    return get.rank_genes_groups_df(adata, groups[0] if group is None else group, key=key)


def option(adata: AnnData, key: str, name: str, default: Any) -> Any:
    """Return an option of the call that made a result."""
    return adata.uns.get(key, {}).get("params", {}).get(name, default)


def positions_of(table: pd.DataFrame, genes: Sequence[str]) -> np.ndarray:
    """Rows of the genes, in their order."""
    genes = [genes] if isinstance(genes, str) else list(genes)
    rows = table.index[table["names"].isin(genes)]
    row_of = dict(zip(table["names"].loc[rows].astype(str), rows, strict=True))
    missing = [gene for gene in genes if gene not in row_of]
    if missing:
        msg = f"The result has no genes {', '.join(map(repr, missing[:5]))}. Pass genes that were modelled."
        raise KeyError(msg)
    return np.array([row_of[gene] for gene in dict.fromkeys(genes)], dtype=int)


def both_ends(n_rows: int, n: int) -> np.ndarray:
    """Positions of the first n rows of a ranking and of the last n, every row once."""
    first = np.arange(min(n, n_rows))
    return np.r_[first, np.arange(max(len(first), n_rows - n), n_rows)]


def comparison(table: pd.DataFrame) -> str:
    """Say what was compared."""
    group, reference = table["group"].iloc[0], table["reference"].iloc[0]
    return f"{group} against {'all others' if reference == 'rest' else reference}"
