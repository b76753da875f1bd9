"""What integration kept and what it mixed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import scanpy as sc
from scipy import sparse

from .. import _logging
from ..metrics.integration import NEIGHBOURHOOD, VOTERS, ideal_same_batch, label_kept, same_batch
from ..metrics.neighbours import nearest
from ..store.checks import require_key
from ..store.covariates import group_names
from ..store.keys import ABSENT, Keys
from ..store.load import columns_from_params, find_entry
from ..store.results import check_slot
from ..store.uns import from_uns_strings, to_uns
from ..store.write import actualise
from ._assemble import check_choice, check_number
from ._presets import recorded, resolve_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

STAGES = ("before", "after")
N_COMPONENTS = 30
"""Principal components of what is compared with."""
UNSTORED = {"key_added"}


def integration_scores(
    adata: AnnData,
    batch_key: str | None = None,
    *,
    label_key: str | None = None,
    before: str | None = None,
    n_neighbors: int | None = None,
    umap: bool = False,
    key: str = "scvi",
    key_added: str | None = None,
    random_state: int = 0,
) -> None:
    r"""Score the latent space of a fit beside the data before it: labels kept, batches mixed.

    Over the nearest other cells :math:`K_n` of each cell, Euclidean in either space,

    .. math::

        \mathrm{label\_score} = \frac1N \sum_n [\text{the majority of } K_n \text{ has the label of } n], \qquad
        \mathrm{batch\_mixing} = \frac1N \sum_n \frac{|\{i \in K_n : s_i = s_n\}|}{|K_n|},

    and `ideal` is what batch mixing would be if the batches were mixed perfectly within each label: the mean of
    :math:`(N_{cb} - 1) / (N_c - 1)` over cells, for a cell of label c and batch b. Batch mixing goes down towards the
    ideal, not to zero; below the ideal, labels are mixed too.

    Where batches differ in biology (treated and untreated), mixing them is no aim, and a low number no merit. Without
    labels the ideal takes all batches to have the same kinds of cells.

    Parameters
    ----------
    adata
        Annotated data with a fit under `uns[key]`.
    batch_key
        Column of `obs` with the batches; by default that of the fit.
    label_key
        Column of `obs` with labels, which the fit should not have seen. Cells without one are left out of all scores.
    before
        Embedding in `obsm` to compare with. By default 30 principal components of the log-normalized counts (10,000 per
        cell) of the modelled genes.
    n_neighbors
        Neighbours looked at; by default 15 vote for a label, and batches are mixed among 30.
    umap
        Whether to compute a UMAP of both spaces too, for :func:`scanpy_scvi.pl.integration`.
    key
        Name of the fit.
    key_added
        Key of the result in `uns`; `f"{key}_integration"` by default.
    random_state
        Seed of principal components and UMAP, and of the neighbour search, which is exact up to 20,000 cells.

    Returns
    -------
    `None`. Written:

    `uns["scvi_integration"]`
        `params`; `table`, a data frame with the rows `before` and `after` and the columns `label_score` (with labels),
        `batch_mixing`, `ideal`, `n_cells`; with labels also `labels`, the same for each label, one row each for before
        and after.
    `obsm["X_umap_scvi_before"]`, `obsm["X_umap_scvi_after"]`
        With `umap=True`.

    Raises
    ------
    KeyError
        Where there is no fit under `key`, or no such column or embedding.
    ValueError
        Where there is a single batch.

    References
    ----------
    The scores are those of :mod:`scanpy_scvi.metrics`. Luecken et al. 2022, Nat Methods 19:41, on why both sides are
    needed.

    Examples
    --------
    >>> import scanpy_scvi as sv
    >>> adata = sv.datasets.cell_lines()
    >>> sv.tl.scvi(adata, batch_key="batch", max_epochs=5, progress=False)
    >>> sv.tl.integration_scores(adata, label_key="cell_type")
    >>> adata.uns["scvi_integration"]["table"].columns.to_list()
    ['label_score', 'batch_mixing', 'ideal', 'n_cells']
    """
    given = resolve_options(integration_scores, locals())
    start = _logging.info("scoring the integration")
    check_number(random_state, 0, 2**32 - 1, "random_state", whole=True)
    check_choice(umap, (True, False), "umap")
    if n_neighbors is not None:
        check_number(n_neighbors, 1, np.inf, "n_neighbors", whole=True)
    entry = find_entry(adata, key)
    slot = f"{key}_integration" if key_added is None else key_added
    check_slot(adata, slot, {"params", "table"}, found="holds no scores")
    cells = _Cells.of(adata, _batch_key(entry, batch_key, key), label_key)
    keys = Keys(key)
    require_key(keys.latent, adata.obsm.keys(), where="adata.obsm", argument="key")
    if before is not None:
        require_key(before, adata.obsm.keys(), where="adata.obsm", argument="before")
    spaces = {
        "before": _principal_components(adata, entry, int(random_state)) if before is None else adata.obsm[before],
        "after": adata.obsm[keys.latent],
    }
    scores = {stage: _scores(np.asarray(x), cells, n_neighbors, int(random_state)) for stage, x in spaces.items()}
    params = {k: v for k, v in recorded(integration_scores, given).items() if k not in UNSTORED}
    result = to_uns({"params": params | {"batch_key": cells.batch_key}})
    assert isinstance(result, dict)  # for the type checker: a mapping stays one
    result["table"] = pd.DataFrame({stage: s.overall(cells) for stage, s in scores.items()}).T
    if label_key is not None:
        result["labels"] = _by_label(scores, cells)
    maps = {stage: _umap(np.asarray(x), int(random_state)) for stage, x in spaces.items()} if umap else {}
    actualise(adata)
    adata.uns[slot] = result
    for stage, coordinates in maps.items():
        adata.obsm[f"X_umap_{key}_{stage}"] = coordinates
    added = [f".uns[{slot!r}]", *(f".obsm['X_umap_{key}_{stage}']" for stage in maps)]
    _logging.closing_line("scored the integration", added=added, time=start)


class _Cells(NamedTuple):
    """The cells that are scored."""

    rows: np.ndarray
    batch_key: str
    batch: np.ndarray
    labels: np.ndarray | None

    @classmethod
    def of(cls, adata: AnnData, batch_key: str, label_key: str | None) -> _Cells:
        batch, names = group_names(adata, batch_key, "batch_key")
        keep, labels = batch >= 0, None
        if label_key is not None:
            codes, label_names = group_names(adata, label_key, "label_key")
            keep &= codes >= 0
            labels = np.asarray(label_names, object)[codes]
        rows = np.flatnonzero(keep)
        if len(names) < 2 or len(np.unique(batch[rows])) < 2:
            msg = f"`adata.obs[{batch_key!r}]` has one batch among the cells that are scored, but mixing needs two."
            raise ValueError(msg)
        return cls(rows, batch_key, batch[rows], None if labels is None else labels[rows])


class _Scores(NamedTuple):
    """Scores of each cell in one space."""

    label_score: np.ndarray | None
    batch_mixing: np.ndarray
    ideal: np.ndarray

    def overall(self, cells: _Cells) -> dict[str, float]:
        return self.of(np.ones(len(cells.rows), bool))

    def of(self, chosen: np.ndarray) -> dict[str, float]:
        """Means over chosen cells."""
        kept = {} if self.label_score is None else {"label_score": float(self.label_score[chosen].mean())}
        mixed = {"batch_mixing": float(self.batch_mixing[chosen].mean()), "ideal": float(self.ideal[chosen].mean())}
        return kept | mixed | {"n_cells": float(chosen.sum())}


def _scores(space: np.ndarray, cells: _Cells, n_neighbors: int | None, random_state: int) -> _Scores:
    voters, around = (VOTERS, NEIGHBOURHOOD) if n_neighbors is None else (int(n_neighbors), int(n_neighbors))
    found = nearest(space[cells.rows], n_neighbors=max(voters, around), random_state=random_state).indices
    return _Scores(
        None if cells.labels is None else label_kept(found[:, :voters], cells.labels),
        same_batch(found[:, :around], cells.batch),
        ideal_same_batch(cells.batch, cells.labels),
    )


def _by_label(scores: Mapping[str, _Scores], cells: _Cells) -> pd.DataFrame:
    """One row for each label and stage."""
    assert cells.labels is not None  # for the type checker
    names = sorted(set(cells.labels))
    rows = [
        {"label": name, "stage": stage, **scores[stage].of(cells.labels == name)} for name in names for stage in STAGES
    ]
    table = pd.DataFrame(rows)
    table["label"] = pd.Categorical(table["label"], categories=names)
    table["stage"] = pd.Categorical(table["stage"], categories=list(STAGES))
    table.index = table.index.astype(str)
    return table


def _batch_key(entry: Mapping, batch_key: str | None, key: str) -> str:
    if batch_key is not None:
        return batch_key
    known = columns_from_params(entry["params"]).batch_key
    if known is None:
        msg = f"The fit under {key!r} has no batches, and `batch_key` was not given. Pass it."
        raise ValueError(msg)
    return known


def _principal_components(adata: AnnData, entry: Mapping, random_state: int) -> np.ndarray:
    """Components of log(1 + counts per 10,000) of the modelled genes, without any correction."""
    genes = adata.var_names.get_indexer(list(from_uns_strings(entry["var_names"])))
    if ABSENT in entry:  # mapped cells, which may lack some
        genes = genes[genes >= 0]
    if (genes < 0).any():
        msg = f"{int((genes < 0).sum())} genes of the model are not in `adata.var_names`. Pass `before=`."
        raise KeyError(msg)
    layer = entry["params"].get("layer")
    matrix = adata.X if layer is None else adata.layers[layer]
    logged = sc.AnnData(sparse.csr_matrix(matrix[:, genes], dtype=np.float32))  # a copy
    sc.pp.normalize_total(logged, target_sum=1e4)
    sc.pp.log1p(logged)
    n_comps = min(N_COMPONENTS, *(n - 1 for n in logged.shape))
    return sc.pp.pca(logged.X, n_comps=n_comps, random_state=random_state)


def _umap(space: np.ndarray, random_state: int) -> np.ndarray:
    embedded = sc.AnnData(obsm={"X": np.asarray(space, np.float32)}, shape=(len(space), 0))
    sc.pp.neighbors(embedded, use_rep="X", random_state=random_state)
    sc.tl.umap(embedded, random_state=random_state)
    return np.asarray(embedded.obsm["X_umap"])
