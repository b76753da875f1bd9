"""The answer to a condition test as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ._among import among

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


def stored_condition_test(adata: AnnData, key: str) -> pd.DataFrame:
    """Return the table of ``adata.uns[key]``, or raise a KeyError that lists the keys of such results."""
    have = [
        k
        for k, v in adata.uns.items()
        if isinstance(v, Mapping) and set(v) == {"params", "table"} and isinstance(v["table"], pd.DataFrame)
    ]
    if key in have:
        return adata.uns[key]["table"]
    advice = f"Pass key={' or key='.join(map(repr, have))}" if have else "Run sv.tl.condition_test(adata, …) first"
    msg = f"adata.uns[{key!r}] holds no condition test. {advice}."
    raise KeyError(msg)


def condition_test_df(
    adata: AnnData,
    group: str | Sequence[str] | None = None,
    *,
    condition: str | Sequence[str] | None = None,
    key: str = "condition_test_scvi",
    only_de: bool = False,
    min_abs_lfc: float = 0.0,
    min_nonzero: float = 0.0,
) -> pd.DataFrame:
    """Return the table of :func:`scanpy_scvi.tl.condition_test`.

    Parameters
    ----------
    adata
        Annotated data with a result.
    group
        Group or groups to return; all by default.
    condition
        Condition or conditions to return; all by default.
    key
        Key of the result in `uns`.
    only_de
        Whether to leave out genes that are not called.
    min_abs_lfc
        Least size of `lfc`; where it is positive, genes that were not tested are left out.
    min_nonzero
        Least share of cells with a count, in the condition or in the reference, whichever is larger.

    Returns
    -------
    One row for each group, condition and gene, best first within a comparison:

    `names`, `group`, `condition`, `reference`
        The gene, and what was compared. Without `groupby`, the group is `"all"`.
    `lfc`, `lfc_low`, `lfc_high`
        Posterior mean of the donors' mean shift (log2 fold change), and the ends of its central credible interval; NaN
        for genes that were not tested.
    `proba_de`, `proba_up`, `proba_down`
        Posterior probabilities of a change of at least delta; the first is the larger of the others.
    `fdr`, `is_de`
        Expected share of false discoveries if this gene and all likelier ones are called, and whether it is called.
    `lfc_donors`
        Mean over donors of their shifts, as they are.
    `lfc_model`
        The same of what the model believes of each donor.
    `donor_sd`, `standard_error`, `df`
        Standard deviation between donors (of their shifts where paired, else of their levels), as it is; the standard
        error of the mean shift from moderated variances, and its degrees of freedom.
    `raw1`, `raw2`, `normalized1`, `normalized2`, `nonzero1`, `nonzero2`
        Mean count, mean count per 10,000, and share of cells with a count, over the cells of the condition (1) and of
        the reference (2).
    `donors1`, `donors2`, `n_cells1`, `n_cells2`, `paired`
        What the comparison rests on, and its design.

    Raises
    ------
    KeyError
        Where there is no such result, group or condition.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.simulate(n_cells=600, density=0.3)
    >>> adata.obs["donor"] = [f"donor_{i % 6}" for i in range(600)]
    >>> adata.obs["treated"] = ["yes" if i % 6 < 3 else "no" for i in range(600)]
    >>> sv.tl.scvi(adata, max_epochs=2, progress=False)
    >>> sv.tl.condition_test(adata, "treated", donor_key="donor", reference="no", groupby="label", n_samples=50)
    >>> sv.get.condition_test_df(adata, "label_0")["group"].unique().tolist()
    ['label_0']
    """
    table = stored_condition_test(adata, key)
    keep = np.ones(len(table), bool)
    for column, wanted in (("group", group), ("condition", condition)):
        if wanted is not None:
            keep &= among(table[column], wanted, column, key)
    if only_de:
        keep &= table["is_de"].to_numpy()
    if min_abs_lfc > 0:
        keep &= np.abs(table["lfc"].to_numpy()) >= min_abs_lfc
    keep &= np.maximum(table["nonzero1"], table["nonzero2"]).to_numpy() >= min_nonzero
    return table[keep].reset_index(drop=True)
