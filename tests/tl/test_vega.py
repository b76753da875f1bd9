import os
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from fingerprint import fingerprint
from questions import ask_everything

import scanpy_scvi as sv
from scanpy_scvi.posterior.factors import explained_variance
from scanpy_scvi.store.load import load

QUICK = {"max_epochs": 3, "n_hidden": 16, "progress": False}
GENES = [f"gene_{i}" for i in range(100)]


@pytest.fixture(scope="module")
def sets(simulated):
    """Three sets, one of a name that files find hard, over 60 of the 100 genes."""
    genes = list(simulated.var_names)
    return {"first": genes[:20], "second/2": genes[15:40], "third": genes[35:60], "too few": genes[60:63]}


@pytest.fixture(scope="module")
def fit(simulated, sets):
    adata = simulated.copy()
    sv.tl.vega(adata, sets, batch_key="batch", n_unannotated=2, **QUICK)
    return adata


def mask_of(adata, sets, names):
    return np.array([[gene in sets.get(name, adata.var_names) for name in names] for gene in adata.var_names])


def test_results_lie_in_slots_of_their_own(fit, simulated, sets):
    names = ["first", "second/2", "third", "unannotated_1", "unannotated_2"]
    entry = fit.uns["vega"]
    assert list(entry["gene_sets"]) == names
    assert list(entry["n_genes"]) == [20, 25, 25, 60, 60]
    assert entry["explained_variance"].shape == entry["explained_variance_ratio"].shape == (5,)
    assert fit.obsm["X_vega"].shape == fit.obsm["vega_latent_var"].shape == (120, 5)
    np.testing.assert_array_equal(fit.var["vega_modelled"], mask_of(fit, sets, ["first", "second/2", "third"]).any(1))
    assert set(fit.uns) - set(simulated.uns) == {"vega"}
    assert "gene_sets" not in entry["params"]
    assert len(str(entry["spec"])) < 2000


@pytest.mark.parametrize("options", [{}, {"non_negative": True}, {"weight_decay": 0.1}], ids=str)
def test_weights_outside_the_sets_are_exactly_zero(options, simulated, sets):
    adata = simulated.copy()
    sv.tl.vega(adata, sets, n_unannotated=1, **(QUICK | {"max_epochs": 20} | options))
    loadings = adata.varm["vega_loadings"]
    modelled = adata.var["vega_modelled"].to_numpy()
    names = list(adata.uns["vega"]["gene_sets"])
    inside = mask_of(adata, sets, names)[modelled]
    assert np.isnan(loadings[~modelled]).all()
    assert (loadings[modelled][~inside] == 0).all()
    assert (loadings[modelled][inside] != 0).all()
    if options.get("non_negative"):
        assert (loadings[modelled][:, :3] >= 0).all()


def test_activity_up_means_genes_up(fit):
    loadings = fit.varm["vega_loadings"][fit.var["vega_modelled"]]
    assert (loadings[:, :3].sum(0) > 0).all()
    assert ((loadings[:, 3:] ** 3).sum(0) > 0).all()


def test_embedding_weights_and_stored_model_agree(fit):
    fitted = load(fit, "vega")
    loadings = fit.varm["vega_loadings"][fit.var["vega_modelled"]]
    np.testing.assert_array_equal(fitted.model.decoder.loadings().detach(), loadings)
    stored = fit.uns["vega"]["explained_variance"]
    again = explained_variance(fit.obsm["X_vega"], fitted.model.decoder.loadings())
    np.testing.assert_allclose(stored, again.variance, rtol=1e-4)
    assert stored[3] >= stored[4]
    v = fit.uns["vega"]["state"]["decoder.covariate_weight"].astype(float)
    expected = fit.obsm["X_vega"].astype(float) @ loadings.T.astype(float) + v[:, 0]
    expected += fit.uns["vega"]["state"]["decoder.bias"]
    rho = sv.tl.normalized_expression(fit, transform_batch="batch_0", key="vega", inplace=False).to_numpy(float)
    log_rho = np.log(rho)
    difference = log_rho - expected
    np.testing.assert_allclose(difference - difference.mean(1, keepdims=True), 0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data will no longer be the default")  # anndata's own default
@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_the_file_is_the_whole_result_to_the_bit(fit, form, tmp_path):
    path = tmp_path / f"fit.{form}"
    getattr(fit, f"write_{form}")(path)
    back = getattr(ad, f"read_{form}")(path)
    np.testing.assert_array_equal(back.varm["vega_loadings"], fit.varm["vega_loadings"])
    np.testing.assert_array_equal(back.uns["vega"]["gene_sets"], fit.uns["vega"]["gene_sets"])
    again = sv.tl.normalized_expression(back, key="vega", inplace=False)
    modelled = fit.var["vega_modelled"].to_numpy()
    np.testing.assert_array_equal(again, fit.layers["vega_normalized"][:, modelled])


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_every_question_is_answered(likelihood, adata, sets):
    options = {"likelihood": likelihood, "dispersion": "gene-cell", "latent_dropout": 0.2, "n_unannotated": 1}
    sv.tl.vega(adata, sets, batch_key="batch", **options, **QUICK)
    ask_everything(adata, "vega")


def test_the_same_seed_gives_the_same_bits(fit, simulated, sets):
    again = simulated.copy()
    sv.tl.vega(again, sets, batch_key="batch", n_unannotated=2, **QUICK)
    assert fingerprint(again) == fingerprint(fit)


def test_a_table_says_which_genes_go_down_with_a_set(adata):
    genes = list(adata.var_names)
    table = pd.DataFrame({"source": "net", "target": genes[:30], "weight": np.r_[np.ones(20), -np.ones(10)]})
    sv.tl.vega(adata, table, non_negative=True, **QUICK)
    weights = adata.varm["vega_loadings"][:30, 0]
    assert (np.sign(weights) == table["weight"]).all()


def test_genes_outside_the_mask_count_for_no_set(adata, sets):
    adata.var["mine"] = np.arange(adata.n_vars) >= 20
    sv.tl.vega(adata, sets, mask_var="mine", **QUICK)
    assert list(adata.uns["vega"]["gene_sets"]) == ["second/2", "third"]
    assert list(adata.uns["vega"]["n_genes"]) == [20, 25]


def test_sets_may_outnumber_genes(adata):
    rng = np.random.default_rng(0)
    many = {f"set {i}": rng.choice(adata.var_names[:40], 10, replace=False) for i in range(60)}
    sv.tl.vega(adata, many, **QUICK)
    assert adata.obsm["X_vega"].shape == (120, 60)
    assert adata.var["vega_modelled"].sum() == 40


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"non_negative": True, "weight_decay": 0.1}, "Leave one of them out"),
        ({"latent_dropout": 1.0}, "latent_dropout"),
        ({"n_unannotated": -1}, "n_unannotated"),
        ({"min_genes": 0}, "min_genes"),
        ({"min_genes": 50}, "Else lower `min_genes`"),
        ({"dispersion": "gene-label"}, "labels_key"),
    ],
)
def test_refuses_what_makes_no_sense(options, match, adata, sets):
    before = fingerprint(adata)
    with pytest.raises(ValueError, match=match):
        sv.tl.vega(adata, sets, **(QUICK | options))
    assert fingerprint(adata) == before


def test_the_credit_goes_to_the_set_that_changes_and_not_to_one_that_holds_it():
    """Three sets of twenty genes change; each lies in a set of a hundred, beside four others that do not."""
    rng = np.random.default_rng(0)
    changing = rng.integers(0, 2, 600)
    eta, sets = np.zeros((600, 300)) + rng.normal(0, 1, 300), {}
    for i in range(3):
        sets[f"whole {i}"] = [str(g) for g in range(100 * i, 100 * i + 100)]
        for j in range(5):
            sets[f"part {i}{j}"] = sets[f"whole {i}"][20 * j : 20 * j + 20]
        z = rng.normal(0, 1, 600) + (2 * changing if i == 0 else 0)
        eta[:, 100 * i : 100 * i + 20] += 0.5 * z[:, None]
    mean = np.exp(eta)
    adata = ad.AnnData(rng.poisson(1500 * mean / mean.sum(1, keepdims=True)).astype(np.float32))
    adata.obs["group"] = np.array(["a", "b"])[changing]
    sv.tl.vega(adata, sets, n_hidden=32, max_epochs=60, progress=False)
    explained = pd.Series(adata.uns["vega"]["explained_variance"], index=adata.uns["vega"]["gene_sets"])
    assert set(explained.nlargest(3).index) == {"part 00", "part 10", "part 20"}
    sv.tl.rank_activities(adata, "group", groups=["b"], reference="a")
    best = sv.get.rank_activities_df(adata).iloc[0]
    assert best["names"] == "part 00"
    assert best["effect"] > 1


@pytest.mark.real_data
@pytest.mark.parametrize("collection", ["hallmark", "reactome"])
def test_interferon_sets_are_on_top_in_stimulated_cells(real_data, collection):
    """Two sets of the hallmark collection answer to interferon; those of Reactome lie within each other."""
    adata = real_data("kang_pbmc_ifnb")
    path = Path(os.environ["SCANPY_SCVI_DATA"]) / f"{collection}.gmt"
    sv.tl.vega(adata, path, min_genes=10, normalized=False, progress=False)
    sv.tl.rank_activities(adata, "condition", groups=["stim"], reference="ctrl")
    table = sv.get.rank_activities_df(adata)
    if collection == "hallmark":
        interferon = {"HALLMARK_INTERFERON_ALPHA_RESPONSE", "HALLMARK_INTERFERON_GAMMA_RESPONSE"}
        assert set(table["names"][:2]) == interferon
        assert set(sv.get.rank_activities_df(adata, only_different=True)["names"]) == interferon
        assert (table["effect"][:2] > 2).all()
    else:
        assert "INTERFERON" in table["names"][0]
        assert table["effect"][0] > 2
