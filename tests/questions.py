"""Every question that works for a fit of whatever model, asked of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import scanpy_scvi as sv

if TYPE_CHECKING:
    from anndata import AnnData


def ask_everything(adata: AnnData, key: str, groupby: str = "label") -> None:
    """Ask, and look whether the answers are of the right shape and finite; `adata` gets them."""
    modelled = adata.var[f"{key}_modelled"].to_numpy()
    table = sv.tl.normalized_expression(adata, key=key, library_size=1.0, inplace=False)
    assert table.shape == (adata.n_obs, modelled.sum())
    np.testing.assert_allclose(table.sum(1), 1, rtol=1e-4)
    sv.tl.rank_genes_groups(adata, groupby, key=key, n_samples=100)
    ranked = sv.get.rank_genes_groups_df(adata, key=f"rank_genes_groups_{key}")
    assert ranked["proba_de"].between(0, 1).all()
    assert np.isfinite(ranked["lfc_mean"]).all()
    drawn = sv.tl.sample(adata, 30, groupby=groupby, key=key)
    assert drawn.shape == (30, modelled.sum())
    assert (drawn.X.data > 0).all()
    sv.tl.log_likelihood(adata, key=key, n_samples=5)
    assert np.isfinite(adata.obs[f"{key}_log_likelihood"]).all()
    sv.tl.trust(adata, key=key)
    assert adata.obs[f"{key}_trust"].between(0, 1).all()
