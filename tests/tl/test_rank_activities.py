import anndata as ad
import numpy as np
import pandas as pd
import pytest
from fingerprint import fingerprint

import scanpy_scvi as sv

KEY = "rank_activities_ldvae"


@pytest.fixture(scope="module")
def fit(simulated):
    adata = simulated.copy()
    sv.tl.ldvae(adata, "batch", n_latent=4, n_hidden=16, max_epochs=20, progress=False)
    return adata


@pytest.fixture
def ranked(fit):
    adata = fit.copy()
    sv.tl.rank_activities(adata, "label", key="ldvae")
    return adata


def test_every_group_has_every_dimension_likeliest_first(ranked):
    table = sv.get.rank_activities_df(ranked, key=KEY)
    groups = ranked.obs["label"].cat.categories
    assert table["group"].unique().tolist() == groups.to_list()
    for group in groups:
        one = sv.get.rank_activities_df(ranked, group, key=KEY)
        assert sorted(one["names"]) == [f"factor {i}" for i in range(4)]
        assert (np.diff(one["proba"]) <= 0).all()
        assert (one["reference"] == "rest").all()
        np.testing.assert_array_equal(one["proba"], one[["proba_up", "proba_down"]].max(axis=1))
        np.testing.assert_allclose(one["bayes_factor"], np.log(one["proba"] / (1 - one["proba"])), atol=1e-6)
        np.testing.assert_allclose(one["fdr"], np.cumsum(1 - one["proba"]) / np.arange(1, 5))
        np.testing.assert_array_equal(one["is_different"], one["fdr"] <= 0.05)
        np.testing.assert_allclose(one["effect"], (one["mean1"] - one["mean2"]) / one["sd"])
        assert (one["n_cells1"] + one["n_cells2"] == ranked.n_obs).all()
    called = sv.get.rank_activities_df(ranked, key=KEY, only_different=True)
    assert called["is_different"].all()
    assert len(called) == table["is_different"].sum()


def test_means_are_those_of_the_stored_embedding(ranked):
    group = ranked.obs["label"].cat.categories[1]
    table = sv.get.rank_activities_df(ranked, group, key=KEY).set_index("names")
    z, inside = ranked.obsm["X_ldvae"].astype(float), (ranked.obs["label"] == group).to_numpy()
    var = ranked.obsm["ldvae_latent_var"].astype(float)
    names = [f"factor {i}" for i in range(4)]
    np.testing.assert_allclose(table.loc[names, "mean1"], z[inside].mean(0))
    np.testing.assert_allclose(table.loc[names, "mean2"], z[~inside].mean(0))
    variances = [z[side].var(0) + var[side].mean(0) for side in (inside, ~inside)]
    np.testing.assert_allclose(table.loc[names, "sd"], np.sqrt(np.mean(variances, axis=0)))


def test_a_group_does_not_depend_on_which_others_are_asked_for(ranked, fit):
    alone = fit.copy()
    group = alone.obs["label"].cat.categories[2]
    sv.tl.rank_activities(alone, "label", groups=[group], key="ldvae", key_added="mine")
    one, other = sv.get.rank_activities_df(alone, key="mine"), sv.get.rank_activities_df(ranked, group, key=KEY)
    pd.testing.assert_frame_equal(one.drop(columns="group"), other.drop(columns="group"), check_categorical=False)


def test_against_one_group_and_with_cells_of_no_group(fit):
    adata = fit.copy()
    first, second = adata.obs["label"].cat.categories[:2]
    adata.obs.loc[adata.obs_names[:20], "label"] = np.nan
    sv.tl.rank_activities(adata, "label", groups=[first], reference=second, key="ldvae")
    table = sv.get.rank_activities_df(adata, key=KEY)
    assert set(table["reference"]) == {second}
    assert set(table["n_cells2"]) == {(adata.obs["label"] == second).sum()}


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data will no longer be the default")  # anndata's own default
@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_survives_a_file_and_works_on_one(ranked, form, tmp_path):
    path = tmp_path / f"ranked.{form}"
    getattr(ranked, f"write_{form}")(path)
    back = getattr(ad, f"read_{form}")(path)
    pd.testing.assert_frame_equal(
        sv.get.rank_activities_df(back, key=KEY), sv.get.rank_activities_df(ranked, key=KEY), check_exact=True
    )
    sv.tl.rank_activities(back, "label", key="ldvae", key_added="again")
    pd.testing.assert_frame_equal(
        sv.get.rank_activities_df(back, key="again"), sv.get.rank_activities_df(ranked, key=KEY), check_exact=True
    )
    assert back.uns["again"]["params"]["groupby"] == "label"


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"delta": -1}, ValueError, "delta"),
        ({"n_samples": 1}, ValueError, "n_samples"),
        ({"fdr_target": 2}, ValueError, "fdr_target"),
        ({"groups": ["nobody"]}, KeyError, "no group 'nobody'"),
        ({"key": "scvi"}, KeyError, "no fitted model"),
        ({"key_added": "taken"}, ValueError, "holds no ranking of activities"),
    ],
)
def test_refuses_and_leaves_everything_as_it_was(options, error, match, fit):
    adata = fit.copy()
    adata.uns["taken"] = {"params": {}}
    before = fingerprint(adata)
    with pytest.raises(error, match=match):
        sv.tl.rank_activities(adata, "label", **({"key": "ldvae"} | options))
    assert fingerprint(adata) == before


def test_refuses_a_fit_whose_dimensions_mean_nothing(fitted):
    with pytest.raises(ValueError, match="decoder that is not linear"):
        sv.tl.rank_activities(fitted.copy(), "label", key="scvi")


def test_results_that_are_not_there_are_named(ranked):
    with pytest.raises(KeyError, match="Pass key='rank_activities_ldvae'"):
        sv.get.rank_activities_df(ranked)
    with pytest.raises(KeyError, match="no group 'nobody'"):
        sv.get.rank_activities_df(ranked, "nobody", key=KEY)
