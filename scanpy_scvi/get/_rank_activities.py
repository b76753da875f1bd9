"""Activities of gene sets between groups, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from ._among import among

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


def rank_activities_df(
    adata: AnnData,
    group: str | Sequence[str] | None = None,
    *,
    key: str = "rank_activities_vega",
    only_different: bool = False,
) -> pd.DataFrame:
    """Return the table of :func:`scanpy_scvi.tl.rank_activities`.

    Parameters
    ----------
    adata
        Annotated data with a result.
    group
        Group or groups to return; all by default.
    key
        Key of the result in `uns`.
    only_different
        Whether to leave out sets that are not called.

    Returns
    -------
    One row for each group and gene set, likeliest first within a group:

    `names`, `group`, `reference`
        The set (or factor), and what was compared.
    `proba`, `proba_up`, `proba_down`, `bayes_factor`
        Posterior probabilities that two cells differ by at least `delta`; the first is the larger of the others, the
        last its natural log odds.
    `fdr`, `is_different`
        Expected share of false discoveries if this set and all likelier ones are called, and whether it is called.
    `effect`
        Difference of the groups' mean activities, in standard deviations within the groups.
    `mean1`, `mean2`, `sd`
        Mean activities of group and reference, and that standard deviation.
    `delta`, `n_cells1`, `n_cells2`
        What the comparison rests on.

    Raises
    ------
    KeyError
        Where there is no such result or group.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.cell_lines()
    >>> sv.tl.ldvae(adata, max_epochs=2, progress=False)
    >>> sv.tl.rank_activities(adata, "cell_type", key="ldvae")
    >>> len(sv.get.rank_activities_df(adata, "A549", key="rank_activities_ldvae"))
    10
    """
    table = stored_activities(adata, key)
    if group is not None:
        table = table[among(table["group"], group, "group", key)]
    if only_different:
        table = table[table["is_different"]]
    return table.reset_index(drop=True)


def stored_activities(adata: AnnData, key: str) -> pd.DataFrame:
    """Return the table in ``adata.uns[key]``, or raise a KeyError that lists the keys of such results."""
    have = [k for k, v in adata.uns.items() if isinstance(v, Mapping) and isinstance(v.get("activities"), pd.DataFrame)]
    if key in have:
        return adata.uns[key]["activities"]
    advice = f"Pass key={' or key='.join(map(repr, have))}" if have else "Run sv.tl.rank_activities(adata, …) first"
    msg = f"adata.uns[{key!r}] holds no ranking of activities. {advice}."
    raise KeyError(msg)
