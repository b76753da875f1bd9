from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from fingerprint import fingerprint
from questions import ask_everything
from scipy import stats
from screens import QUICK, label_shifts, screen, wide

import scanpy_scvi as sv


@pytest.fixture(scope="module")
def cells():
    return screen()


def test_combinations_have_the_sum_of_the_shifts(cells):
    adata = cells.copy()
    label = adata.obs["perturbation"].astype(str).to_numpy()
    a, b = "perturbation_1", "perturbation_2"
    label[np.flatnonzero(label == a)[::2]] = f"{a}+{b}"
    label[np.flatnonzero(label == b)[::2]] = f"{b}+control"
    adata.obs["guides"] = label
    sv.tl.svae(adata, "guides", control="control", **QUICK)
    found = adata.uns["svae"]
    assert list(found["effects"].index) == sorted(set(cells.obs["perturbation"]) - {"control"})
    assert (
        found["perturbations"].loc[b, "n_cells"]
        == (label == b).sum() + (label == f"{b}+control").sum() + (label == f"{a}+{b}").sum()
    )
    np.testing.assert_allclose(
        adata.obsm["X_svae"] - adata.obsm["X_svae_basal"],
        label_shifts(adata, column="guides"),
        atol=1e-5,
    )


def test_without_a_control_nothing_is_split_and_a_forgotten_one_is_told(cells, caplog):
    with caplog.at_level(logging.WARNING):
        adata = sv.tl.svae(cells, "perturbation", copy=True, **QUICK)
    assert "'control' is taken for a perturbation" in caplog.text
    assert "null_shifts" not in adata.uns["svae"]
    assert adata.uns["svae"]["rule"]["min_errors"] == pytest.approx(stats.norm.isf(0.05 / 8))
    assert "control" in adata.uns["svae"]["effects"].index


def test_one_perturbation_is_enough_to_run(cells):
    two = cells[cells.obs["perturbation"].isin(["control", "perturbation_1"])].copy()
    sv.tl.svae(two, "perturbation", control="control", **QUICK)
    assert two.uns["svae"]["effects"].shape == (1, 4)


def as_table(adata):
    names = sorted(set(adata.obs["perturbation"]) - {"control"})
    table = pd.DataFrame(0, index=adata.obs_names, columns=names)
    for name in names:
        table.loc[(adata.obs["perturbation"] == name).to_numpy(), name] = 2  # counts of guides, say
    return table


def test_a_table_of_perturbations_is_the_same_as_their_names(cells, tmp_path):
    fit = sv.tl.svae(cells, "perturbation", control="control", batch_key="batch", copy=True, **QUICK)
    adata = cells.copy()
    adata.obsm["guides"] = as_table(adata)
    sv.tl.svae(adata, "guides", batch_key="batch", **QUICK)
    np.testing.assert_array_equal(adata.obsm["X_svae"], fit.obsm["X_svae"])
    pd.testing.assert_frame_equal(adata.uns["svae"]["targets"], fit.uns["svae"]["targets"])
    assert (adata.obs["svae_perturbation"].astype(str) == adata.obs["perturbation"].astype(str)).all()
    adata.write_h5ad(tmp_path / "a.h5ad")
    ask_everything(ad.read_h5ad(tmp_path / "a.h5ad"), "svae", groupby="perturbation")
    sv.tl.svae(adata, "guides", batch_key="batch", **QUICK)  # once more, over its own column
    assert list(adata.obs).count("svae_perturbation") == 1


def test_a_table_of_combinations(cells):
    adata = cells.copy()
    table = as_table(adata)
    both = ["perturbation_1", "perturbation_2"]
    table.loc[table[both[0]] > 0, both[1]] = 1
    adata.obsm["guides"] = table
    other = sv.tl.svae(adata, "guides", copy=True, **QUICK)
    assert "svae_perturbation" not in adata.obs
    assert set(other.obs["svae_perturbation"]) >= {"+".join(both), both[1], "control"}
    assert other.uns["svae"]["perturbations"].loc[both[1], "n_cells"] == (table[both[1]] > 0).sum()


@pytest.mark.parametrize("kind", ["array", "name", "missing", "taken"])
def test_a_table_that_cannot_be_read(cells, kind):
    adata = cells.copy()
    table = as_table(adata).astype(float)
    if kind == "name":
        table = table.rename(columns={"perturbation_1": "a+b"})
    if kind == "missing":
        table.iloc[3, 2] = np.nan
    if kind == "taken":
        adata.obs["svae_perturbation"] = "mine"
    adata.obsm["guides"] = table.to_numpy() if kind == "array" else table
    before = fingerprint(adata)
    with pytest.raises((TypeError, ValueError), match=r"guides|svae_perturbation"):
        sv.tl.svae(adata, "guides", **QUICK)
    assert fingerprint(adata) == before


def test_a_fit_that_fails_leaves_no_column(cells):
    adata = cells.copy()
    adata.obsm["guides"] = as_table(adata)
    before = fingerprint(adata)
    with pytest.raises(ValueError, match="nobody"):
        sv.tl.svae(adata, "guides", control=["control", "nobody"], **QUICK)
    assert fingerprint(adata) == before


def test_perturbations_of_one_cell_each(cells):
    """There is nothing to turn the latent space by, which is no reason to stop after it was fitted."""
    adata = cells[(cells.obs["perturbation"] == "control").to_numpy()].copy()
    label = np.array(["control"] * adata.n_obs, object)
    label[:3] = "a", "b", "c"
    adata.obs["perturbation"] = label
    sv.tl.svae(adata, "perturbation", control="control", **QUICK)
    assert adata.uns["svae"]["perturbations"]["n_cells"].tolist() == [1, 1, 1]
    assert wide(adata, "is_target").sum() <= 1


def test_every_cell_may_have_a_combination_of_its_own(cells):
    adata = cells.copy()
    rng = np.random.default_rng(0)
    names = np.array([f"g{i}" for i in range(30)])
    adata.obs["guides"] = ["+".join(sorted(rng.choice(names, 6, replace=False))) for _ in range(adata.n_obs)]
    sv.tl.svae(adata, "guides", **QUICK)
    error = wide(adata, "standard_error")
    assert (error > 0.01).all()
    assert wide(adata, "is_target").mean() < 0.05


def test_a_table_where_every_cell_has_a_perturbation_has_no_control(cells):
    adata = cells[(cells.obs["perturbation"] != "control").to_numpy()].copy()
    adata.obsm["guides"] = as_table(adata)
    named = sv.tl.svae(adata, "perturbation", copy=True, **QUICK)
    sv.tl.svae(adata, "guides", **QUICK)
    np.testing.assert_array_equal(adata.obsm["X_svae"], named.obsm["X_svae"])
    assert "null_shifts" not in adata.uns["svae"]
    assert list(sv.get.perturbations(adata).uns["control"]) == []


@pytest.mark.parametrize("control", [0, [0], np.int64(0), np.array(["0"])])
def test_a_control_may_be_named_as_its_number(cells, control, tmp_path):
    adata = cells.copy()
    adata.obs["perturbation"] = pd.Categorical(cells.obs["perturbation"].astype(str)).codes.astype(int)
    sv.tl.svae(adata, "perturbation", control=control, **QUICK | {"max_epochs": 2})
    adata.write_h5ad(tmp_path / "a.h5ad")
    space = sv.get.perturbations(ad.read_h5ad(tmp_path / "a.h5ad"))
    assert "0" not in space.obs_names
    assert list(space.uns["control"]) == ["0"]
