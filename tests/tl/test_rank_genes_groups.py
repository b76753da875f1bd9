from concurrent.futures import ThreadPoolExecutor

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

import scanpy_scvi as sv

KEY = "rank_genes_groups_scvi"
FIELDS = ["names", "scores", "logfoldchanges", "pvals", "pvals_adj"]


@pytest.fixture(scope="module")
def ranked(fitted):
    adata = fitted.copy()
    sv.tl.rank_genes_groups(adata, "label", n_samples=300)
    return adata


def same(a, b):
    pd.testing.assert_frame_equal(a, b, check_exact=True)


def test_scanpy_reads_the_result(ranked):
    groups = ranked.obs["label"].cat.categories
    for group in groups:
        theirs = sc.get.rank_genes_groups_df(ranked, group, key=KEY)
        ours = sv.get.rank_genes_groups_df(ranked, group)
        assert theirs.columns.to_list() == FIELDS
        assert set(theirs["names"]) == set(ranked.var_names[ranked.var["scvi_modelled"]])
        assert (np.diff(theirs["scores"]) <= 0).all()
        np.testing.assert_array_equal(theirs["names"], ours["names"])
        np.testing.assert_array_equal(theirs["pvals"], ours["proba_not_de"])
        np.testing.assert_array_equal(theirs["pvals_adj"], ours["fdr"].clip(lower=1 / 301))
        np.testing.assert_array_equal(theirs["logfoldchanges"], ours["lfc_mean"])
        assert theirs[["pvals", "pvals_adj"]].to_numpy().min() >= 1 / 301
    everything = sv.get.rank_genes_groups_df(ranked)
    assert everything["group"].unique().tolist() == groups.to_list()
    params = ranked.uns[KEY]["params"]
    assert (params["groupby"], params["reference"], params["method"], bool(params["use_raw"])) == (
        "label",
        "rest",
        "scvi",
        False,
    )


@pytest.mark.filterwarnings("ignore:set_ticklabels:UserWarning")  # scanpy's violin plot
@pytest.mark.parametrize(
    "name",
    [
        "rank_genes_groups",
        "rank_genes_groups_heatmap",
        "rank_genes_groups_dotplot",
        "rank_genes_groups_matrixplot",
        "rank_genes_groups_stacked_violin",
        "rank_genes_groups_tracksplot",
        "rank_genes_groups_violin",
    ],
)
def test_every_plot_of_scanpy_draws_it(ranked, name):
    import matplotlib.pyplot as plt

    adata = ranked.copy()
    options = (
        {"dendrogram": False} if name.rsplit("_", 1)[-1] in {"heatmap", "dotplot", "matrixplot", "tracksplot"} else {}
    )
    options |= {"dendrogram": False} if name.endswith("stacked_violin") else {}
    getattr(sc.pl, name)(adata, key=KEY, n_genes=3, show=False, **options)
    plt.close("all")


def test_scanpys_filter_takes_it(ranked):
    adata = ranked.copy()
    sc.tl.filter_rank_genes_groups(adata, key=KEY, key_added="filtered", min_fold_change=0.1, use_raw=False)
    assert set(adata.uns["filtered"]) >= set(FIELDS)


@pytest.mark.filterwarnings("ignore:Writing zarr v2:UserWarning")  # anndata 0.12 on its own default
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_survives_a_file(fitted, tmp_path, suffix):
    ranked = fitted.copy()
    ranked.obs["label"] = ranked.obs["label"].cat.rename_categories(["CD4+/CD25 T reg", "µ é", "0"])
    sv.tl.rank_genes_groups(ranked, "label", n_samples=300)
    path = tmp_path / f"a.{suffix}"
    getattr(ranked, f"write_{suffix}")(path)
    again = getattr(ad, f"read_{suffix}")(path)
    same(sv.get.rank_genes_groups_df(again), sv.get.rank_genes_groups_df(ranked))
    group = ranked.obs["label"].cat.categories[0]
    same(*(sc.get.rank_genes_groups_df(a, group, key=KEY) for a in (again, ranked)))
    sv.tl.rank_genes_groups(again, "label", n_samples=300)
    same(sv.get.rank_genes_groups_df(again), sv.get.rank_genes_groups_df(ranked))


def test_a_group_does_not_depend_on_the_others(ranked, fitted):
    adata = fitted.copy()
    group = adata.obs["label"].cat.categories[-1]
    sv.tl.rank_genes_groups(adata, "label", groups=[group], n_samples=300, key_added="one")
    one, same_group = (
        sv.get.rank_genes_groups_df(a, group, key=k).drop(columns="group") for a, k in ((adata, "one"), (ranked, KEY))
    )
    same(one, same_group)


def test_seeds_and_columns(fitted):
    adata, tables = fitted.copy(), []
    a, b, _ = adata.obs["label"].cat.categories
    adata.obs["half"] = adata.obs["label"].astype(object).where(adata.obs["label"] != a)  # cells without a group
    for seed in (0, 1):
        sv.tl.rank_genes_groups(adata, "half", groups=b, n_samples=200, random_state=seed)
        tables.append(sv.get.rank_genes_groups_df(adata).set_index("names"))
    first, second = tables[0], tables[1].loc[tables[0].index]
    assert (first["lfc_mean"] != second["lfc_mean"]).any()
    np.testing.assert_allclose(first["lfc_mean"], second["lfc_mean"], atol=6 * first["lfc_std"].max() / 200**0.5)
    counts = np.asarray(adata[adata.obs["label"] == b, first.index].X.mean(0)).ravel()
    np.testing.assert_allclose(first["raw1"], counts, rtol=1e-5)
    assert first["n_cells1"].iloc[0] == (adata.obs["label"] == b).sum()
    assert first["n_cells2"].iloc[0] == (~adata.obs["label"].isin([a, b])).sum()
    assert ((first["lfc_low"] <= first["lfc_median"]) & (first["lfc_median"] <= first["lfc_high"])).all()
    assert first["stability"].between(0, 1).all()


def test_importance_weights_give_another_sample_of_nearly_the_same(fitted):
    adata = fitted.copy()
    tables = []
    for weights in ("uniform", "importance", "importance"):
        sv.tl.rank_genes_groups(adata, "label", n_samples=300, weights=weights)
        tables.append(sv.get.rank_genes_groups_df(adata).set_index(["group", "names"]).sort_index())
    uniform, weighted, again = tables
    same(weighted, again)
    assert adata.uns[KEY]["params"]["weights"] == "importance"
    assert (uniform["n_effective1"] == 300).all()
    assert ((weighted["n_effective1"] >= 1) & (weighted["n_effective1"] < 300)).all()
    assert (uniform["lfc_mean"] != weighted["lfc_mean"]).any()
    assert (uniform["lfc_mean"] - weighted["lfc_mean"]).abs().max() < 3 * uniform["lfc_std"].max()


def test_changes_that_the_latent_space_does_not_know_are_found(cell_lines, quick_fit):
    """Within one cell line, half of the cells lose molecules of a few genes."""
    rng = np.random.default_rng(0)
    adata = cell_lines[cell_lines.obs["cell_type"] == "H1975"].copy()
    adata.obs["half"] = rng.permutation(np.arange(adata.n_obs) % 2).astype(str)
    x = adata.X.toarray()
    changed = rng.choice(np.flatnonzero(x.sum(0) > 500), 40, replace=False)
    lost = np.zeros(adata.n_vars)
    lost[changed] = rng.uniform(1, 3, 40)
    lower = adata.obs["half"] == "1"
    x[lower] = rng.binomial(x[lower].astype(int), 2.0**-lost)
    adata.X = sparse.csr_matrix(x.astype(np.float32))
    quick_fit(adata)
    slopes = {}
    for residuals in (True, False):
        sv.tl.rank_genes_groups(adata, "half", groups=["0"], n_samples=1000, residuals=residuals)
        table = sv.get.rank_genes_groups_df(adata).set_index("names").loc[adata.var_names]
        slopes[residuals] = np.polyfit(lost[changed], table["lfc_mean"].to_numpy()[changed], 1)[0]
        if residuals:
            called = table["is_de"].to_numpy()
            assert called[changed].mean() > 0.9
            assert called[lost == 0].sum() <= 0.15 * called.sum()
            assert table["residual"].iloc[changed].min() > 0.3
            assert table["residual"].abs().drop(table.index[changed]).median() < 0.01
    assert 0.8 < slopes[True] < 1.1
    assert slopes[False] < 0.5


def test_genes_with_hardly_any_count_are_not_called(fitted):
    adata = fitted.copy()
    sv.tl.rank_genes_groups(adata, "label", n_samples=50, min_counts=10**6)
    table = sv.get.rank_genes_groups_df(adata)
    assert not table["is_de"].any()
    assert (table["proba_de"] == 0).all()
    assert (table["fdr"] == 1).all()


def test_reading_filters(ranked):
    everything = sv.get.rank_genes_groups_df(ranked)
    found = sv.get.rank_genes_groups_df(ranked, min_abs_lfc=0.005, min_nonzero=0.3)
    keep = (everything["lfc_mean"].abs() >= 0.005) & (everything[["nonzero1", "nonzero2"]].max(axis=1) >= 0.3)
    assert 0 < len(found) == keep.sum() < len(everything)
    assert sv.get.rank_genes_groups_df(ranked, only_de=True)["is_de"].all()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"groupby": "labell"}, KeyError, "Did you mean 'label'"),
        ({"groups": ["nobody"]}, KeyError, "has no group 'nobody'"),
        ({"reference": "nobody"}, KeyError, "has no group 'nobody'"),
        ({"key": "other"}, KeyError, "Fits are stored under 'scvi'"),
        ({"mode": "chance"}, ValueError, "'change', 'vanilla'"),
        ({"n_samples": 3}, ValueError, "at least 10|from 10"),
        ({"delta": -1}, ValueError, "`delta` is -1"),
        ({"key_added": "a/b"}, ValueError, "without '/'"),
        ({"key_added": "scvi"}, ValueError, "holds no ranking"),
        ({"groups": ["rest", "label_0"]}, KeyError, "has no group 'rest'"),
        ({"groups": []}, ValueError, "at least one group"),
        ({"groups": "label_0", "reference": "label_0"}, ValueError, "at least one group"),
        ({"delta": 0, "test": "two"}, ValueError, "larger `delta`"),
        ({"batch_correction": "no"}, ValueError, "batch_correction"),
    ],
)
def test_refuses_with_a_reason_and_leaves_the_object(fitted, options, error, words):
    adata = fitted.copy()
    before = set(adata.uns)
    with pytest.raises(error, match=words):
        sv.tl.rank_genes_groups(adata, **({"groupby": "label", "n_samples": 20} | options))
    assert set(adata.uns) == before


def test_a_group_named_rest_is_ambiguous(fitted):
    adata = fitted.copy()
    adata.obs["label"] = adata.obs["label"].cat.rename_categories(["rest", "b", "c"])
    with pytest.raises(ValueError, match="Rename it"):
        sv.tl.rank_genes_groups(adata, "label")
    sv.tl.rank_genes_groups(adata, "label", reference="b", n_samples=20)
    assert set(adata.uns[KEY]["names"].dtype.names) == {"rest", "c"}


def test_groups_may_be_numbers(fitted):
    adata = fitted.copy()
    adata.obs["number"] = adata.obs["label"].cat.codes.astype(int)
    sv.tl.rank_genes_groups(adata, "number", groups={1}, reference=0, n_samples=20, random_state=1.0)
    assert len(sv.get.rank_genes_groups_df(adata, 1)) == len(sv.get.rank_genes_groups_df(adata, [1])) > 0


def test_a_gene_with_just_enough_counts_is_tested(fitted):
    adata = fitted.copy()
    totals = np.asarray(adata.X.sum(0)).ravel()
    least = int(totals[totals > 0].min())
    for limit, expected in ((least, True), (least + 1, False)):
        sv.tl.rank_genes_groups(adata, "label", groups="label_0", n_samples=20, min_counts=limit)
        table = sv.get.rank_genes_groups_df(adata).set_index("names")
        assert (table.loc[adata.var_names[totals == least], "proba_de"] > 0).any() == expected


def test_a_group_of_most_cells_has_a_rest_of_its_own(fitted):
    adata = fitted.copy()
    adata.obs["half"] = np.where(np.arange(adata.n_obs) < 25, "few", "many")
    sv.tl.rank_genes_groups(adata, "half", n_samples=300, residuals=False)
    table = sv.get.rank_genes_groups_df(adata).set_index(["group", "names"])["lfc_mean"].unstack(0)
    np.testing.assert_allclose(table["few"], -table["many"], atol=0.05)


def test_threads_take_turns(fitted):
    alone = fitted.copy()
    sv.tl.rank_genes_groups(alone, "label", n_samples=200)
    copies = [fitted.copy() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda a: sv.tl.rank_genes_groups(a, "label", n_samples=200), copies))
    for adata in copies:
        same(sv.get.rank_genes_groups_df(adata), sv.get.rank_genes_groups_df(alone))


def test_one_group_cannot_be_compared(fitted):
    adata = fitted.copy()
    adata.obs["all"] = "same"
    with pytest.raises(ValueError, match="two to compare"):
        sv.tl.rank_genes_groups(adata, "all")


def test_reading_what_is_not_there(ranked, fitted):
    with pytest.raises(KeyError, match=f"Pass key={KEY!r}"):
        sv.get.rank_genes_groups_df(ranked, key="none")
    with pytest.raises(KeyError, match=r"Run sv\.tl\.rank_genes_groups"):
        sv.get.rank_genes_groups_df(fitted)
    with pytest.raises(KeyError, match="has no group 'nobody'"):
        sv.get.rank_genes_groups_df(ranked, "nobody")


@pytest.mark.real_data
def test_interferon_genes_of_monocytes_come_first(real_data):
    """Kang et al. 2018: CXCL10, IFIT1, IFIT3, RSAD2, ISG15, MX1 rise by more than 4 log2 units."""
    adata = real_data("kang_pbmc_ifnb")
    adata = adata[adata.obs["cell_type_coarse"] == "Monocytes"].copy()
    sc.pp.filter_genes(adata, min_cells=25)
    sv.tl.scvi(adata, normalized=False, progress=False)
    sv.tl.rank_genes_groups(adata, "condition", groups=["stim"], reference="ctrl")
    table = sv.get.rank_genes_groups_df(adata).set_index("names")
    known = ["CXCL10", "IFIT1", "IFIT3", "RSAD2", "ISG15", "MX1"]
    assert table.loc[known, "is_de"].all()
    assert (table.loc[known, "lfc_mean"] > 4).all()
    assert (table.index.get_indexer(known) < 40).all()


def test_a_fit_ranks_in_the_same_call(simulated, quick_fit):
    adata, other = simulated.copy(), simulated.copy()
    quick_fit(adata, groupby="label", key_added="mine")
    quick_fit(other, key_added="mine")
    sv.tl.rank_genes_groups(other, "label", key="mine")
    same(*(sv.get.rank_genes_groups_df(a, key="rank_genes_groups_mine") for a in (adata, other)))


def test_a_fit_refuses_groups_that_are_not_there_before_it_begins(simulated, quick_fit):
    adata = simulated.copy()
    with pytest.raises(KeyError, match="Did you mean 'label'"):
        quick_fit(adata, groupby="lable")
    assert "scvi" not in adata.uns


def test_groups_may_be_an_index_and_one_cell_is_a_group(fitted):
    adata = fitted.copy()
    adata.obs["label"] = adata.obs["label"].astype(str)
    adata.obs.loc[adata.obs_names[0], "label"] = "alone"
    adata.obs["label"] = adata.obs["label"].astype("category")
    sv.tl.rank_genes_groups(adata, "label", groups=adata.obs["label"].cat.categories, n_samples=50)
    table = sv.get.rank_genes_groups_df(adata)
    top = table.groupby("group", observed=True)["scores"].max()
    assert top["alone"] < 3 * top.drop("alone").max() + 3


def test_a_column_without_groups_is_refused(fitted):
    adata = fitted.copy()
    adata.obs["nobody"] = np.nan
    with pytest.raises(ValueError, match="names no group for any cell"):
        sv.tl.rank_genes_groups(adata, "nobody")


def test_a_table_of_somebody_else_is_not_overwritten(fitted):
    adata = fitted.copy()
    adata.uns["mine_table"] = "precious"
    with pytest.raises(ValueError, match="mine_table"):
        sv.tl.rank_genes_groups(adata, "label", key_added="mine", n_samples=20)
    assert adata.uns["mine_table"] == "precious"


def test_few_draws_call_by_what_the_table_says(fitted):
    adata = fitted.copy()
    sv.tl.rank_genes_groups(adata, "label", n_samples=10, fdr_target=0.05)
    table = sv.get.rank_genes_groups_df(adata)
    np.testing.assert_array_equal(table["is_de"], table["fdr"] <= 0.05)
    stored = sc.get.rank_genes_groups_df(adata, None, key=KEY)
    assert stored["pvals_adj"].min() >= 1 / 11
