import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

import scanpy_scvi as sv

KEY = "condition_test_scvi"
N_GENES = 150
CALL = {"donor_key": "donor", "reference": "no", "n_samples": 40}


def donor_counts(*, paired=False, n_donors=4, n_cells=60, donor_sd=0.3, lfc=0.0, n_changed=0, seed=0):
    """NB counts of donors who differ; the first genes change with the treatment, every second one down."""
    rng = np.random.default_rng(seed)
    base = rng.normal(0, 1, N_GENES)
    change = np.zeros(N_GENES)
    change[:n_changed] = lfc * np.where(np.arange(n_changed) % 2, -1, 1)
    rows, obs = [], []
    for donor in range(n_donors if paired else 2 * n_donors):
        own, response = rng.normal(0, donor_sd, (2, N_GENES))
        for treated in (0, 1) if paired else (donor % 2,):
            rho = np.exp(base + own + treated * (np.log(2) * change + (response / 2 if paired else 0)))
            mean = rng.lognormal(6, 0.3, n_cells)[:, None] * rho / rho.sum()
            rows.append(rng.poisson(rng.gamma(3, mean / 3)))
            obs += [(f"d{donor}", ("no", "yes")[treated])] * n_cells
    adata = ad.AnnData(sparse.csr_matrix(np.concatenate(rows), dtype=np.float32))
    adata.obs_names = [f"cell_{i}" for i in range(adata.n_obs)]
    adata.var_names = [f"gene_{g}" for g in range(N_GENES)]
    adata.obs[["donor", "treated"]] = obs
    adata.obs["type"] = np.where(np.arange(adata.n_obs) % 3 == 0, "a", "b")
    return adata


@pytest.fixture(scope="module")
def changed(quick_fit):
    """Four donors a side, 20 genes of 150 changed by 2 log2 units; do not change it."""
    adata = donor_counts(lfc=2.0, n_changed=20)
    quick_fit(adata, batch_key=None)
    sv.tl.condition_test(adata, "treated", groupby="type", **CALL)
    return adata


def table_of(adata, **options):
    sv.tl.condition_test(adata, "treated", **(CALL | options))
    return sv.get.condition_test_df(adata)


def levels_by_hand(counts):
    """log2 of the share plus half a mean count, less the bias of a logarithm of Poisson counts; units x genes."""
    totals, x = counts.sum(1), np.arange(5000)
    c, share = 0.5 / totals.mean(), (counts / totals[:, None]).mean(0)
    mean = totals[:, None] * share
    log_of_x = np.log2(x + c * totals[:, None])
    expected = np.einsum("ugx,ux->ug", stats.poisson.pmf(x, mean[:, :, None]), log_of_x)
    return np.log2(counts / totals[:, None] + c) - expected + np.log2(mean + c * totals[:, None])


def same(a, b, **options):
    pd.testing.assert_frame_equal(a, b, **({"check_exact": True} | options))


@pytest.mark.parametrize("paired", [False, True])
def test_finds_what_changed(paired, quick_fit):
    adata = donor_counts(paired=paired, lfc=2.0, n_changed=20)
    quick_fit(adata, batch_key=None)
    table = table_of(adata)
    assert (table["paired"] == paired).all()
    assert table[["donors1", "donors2"]].to_numpy().tolist() == [[4, 4]] * N_GENES
    truth = pd.Series(np.where(np.arange(20) % 2, -2.0, 2.0), index=[f"gene_{g}" for g in range(20)])
    found = table.set_index("names")
    called = found.index[found["is_de"]]
    assert len(called.intersection(truth.index)) >= 18
    assert len(called.difference(truth.index)) <= 2
    shifts = found.loc[truth.index]
    np.testing.assert_allclose(shifts["lfc_donors"], truth, atol=1)
    assert ((shifts["lfc_low"] <= truth) & (truth <= shifts["lfc_high"])).mean() >= 0.8
    assert (np.diff(table["proba_de"]) <= 0).all()
    assert found.loc[~found["is_de"], "fdr"].min() > 0.05 >= found.loc[found["is_de"], "fdr"].max()


def test_level_and_errors_from_first_principles(changed):
    """Without a batch the estimate is plain arithmetic on the donors' counts."""
    adata = changed.copy()
    table = table_of(adata, normalize=False).set_index("names").loc[adata.var_names]
    counts = pd.DataFrame(
        adata.X.toarray().astype(float), index=pd.MultiIndex.from_frame(adata.obs[["treated", "donor"]])
    )
    counts = counts.groupby(level=[0, 1]).sum()
    level = pd.DataFrame(levels_by_hand(counts.to_numpy()), index=counts.index)
    shift = level.loc["yes"].mean() - level.loc["no"].mean()
    np.testing.assert_allclose(table["lfc_donors"], shift, atol=1e-3)
    pooled = (level.loc["yes"].var() + level.loc["no"].var()) / 2
    np.testing.assert_allclose(table["donor_sd"] ** 2, pooled, atol=1e-3)
    d0 = table["df"].iloc[0] - 6
    assert d0 > 0
    moderated = table["standard_error"] ** 2 / (1 / 4 + 1 / 4)
    if np.isfinite(d0):  # between the gene's own and the prior variance
        assert ((moderated - pooled.to_numpy()).abs() <= d0 / (d0 + 6) * np.ptp(pooled)).all()
    assert table["raw1"].to_numpy() == pytest.approx(
        np.asarray(adata[adata.obs["treated"] == "yes"].X.mean(0)).ravel(), rel=1e-5
    )


def test_cells_of_a_donor_do_not_weigh(changed):
    """Eight times the cells of one donor: hardly another answer, where a mean over cells would change."""
    adata = changed.copy()
    one = adata[adata.obs["donor"] == "d1"]
    many = ad.concat([adata, *[one] * 7], index_unique="-")
    many.uns["scvi"] = adata.uns["scvi"]
    before, after = (table_of(a, normalize=False).set_index("names") for a in (adata, many))
    expressed = before.index[before["raw1"] > 0.5]
    assert len(expressed) > 80
    moved = (after["lfc_donors"] - before["lfc_donors"])[expressed].abs()
    assert moved.max() < 0.06  # by c alone, which knows the mean total
    over_cells = np.log2(after["normalized1"] / before["normalized1"])[expressed].abs()
    assert over_cells.median() > 10 * moved.median()
    assert after["n_cells1"].iloc[0] == before["n_cells1"].iloc[0] + 7 * 60


@pytest.mark.parametrize("paired", [False, True])
def test_donors_who_differ_are_no_discovery(paired, quick_fit):
    calls = by_cells = 0
    for seed in range(3):
        adata = donor_counts(paired=paired, n_donors=3, donor_sd=0.6, seed=seed)
        quick_fit(adata, batch_key=None)
        calls += table_of(adata)["is_de"].sum()
        logged = np.log1p(1e3 * adata.X.toarray() / adata.X.sum(1))
        treated = (adata.obs["treated"] == "yes").to_numpy()
        p = stats.ttest_ind(logged[treated], logged[~treated]).pvalue
        by_cells += (stats.false_discovery_control(p) <= 0.05).sum()
    assert calls <= 0.01 * 3 * N_GENES
    assert by_cells > 20 + 5 * calls  # what comes of cells as replicates


def test_order_of_cells_and_categories_does_not_matter(changed):
    adata = changed.copy()
    shuffled = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    for column in ("donor", "treated", "type"):
        names = shuffled.obs[column].unique()
        shuffled.obs[column] = pd.Categorical(shuffled.obs[column], categories=names[::-1])
    first, second = (table_of(a, groupby="type") for a in (adata, shuffled))
    second = pd.concat([second[second["group"] == g] for g in first["group"].unique()], ignore_index=True)
    summed = ["normalized1", "normalized2"]  # float sums over cells
    first, second = (t.astype({"group": str}) for t in (first, second))
    same(first.drop(columns=summed), second.drop(columns=summed))
    same(first[summed], second[summed], check_exact=False, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:Writing zarr v2:UserWarning")  # anndata 0.12 on its own default
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_survives_a_file(changed, tmp_path, suffix):
    adata = changed.copy()
    adata.obs["type"] = adata.obs["type"].map({"a": "CD4+/CD25 T reg", "b": "µ é"})
    sv.tl.condition_test(adata, "treated", groupby="type", min_counts=2000, **CALL)
    path = tmp_path / f"a.{suffix}"
    getattr(adata, f"write_{suffix}")(path)
    again = getattr(ad, f"read_{suffix}")(path)
    before = sv.get.condition_test_df(adata)
    assert before["lfc"].isna().any()
    same(sv.get.condition_test_df(again), before)
    sv.tl.condition_test(again, "treated", groupby="type", min_counts=2000, **CALL)
    same(sv.get.condition_test_df(again), before)
    params = again.uns[KEY]["params"]
    assert (params["condition_key"], params["donor_key"], params["reference"], params["level"]) == (
        "treated",
        "donor",
        "no",
        "observed",
    )


def test_a_group_does_not_depend_on_the_others(changed):
    adata = changed.copy()
    sv.tl.condition_test(adata, "treated", groupby="type", groups=["b"], key_added="one", **CALL)
    one, of_all = sv.get.condition_test_df(adata, key="one"), sv.get.condition_test_df(adata, "b")
    same(one.drop(columns="group"), of_all.drop(columns="group"))


def test_seeds_change_the_models_view_alone(changed):
    adata = changed.copy()
    zero, one = (table_of(adata, random_state=seed).set_index("names") for seed in (0, 1))
    one = one.loc[zero.index]
    same(zero.drop(columns="lfc_model"), one.drop(columns="lfc_model"))
    assert (zero["lfc_model"] != one["lfc_model"]).any()
    tested = [table_of(adata, random_state=s, level="denoised").set_index("names")["lfc_donors"] for s in (0, 1)]
    np.testing.assert_array_equal(tested[0].loc[zero.index], zero["lfc_model"])
    assert (tested[0] != tested[1].loc[tested[0].index]).any()


def test_draws_are_of_the_units_own_cells(changed):
    """The model's view is the mean over cells of the normalized expression, up to the draws."""
    adata = changed.copy()
    table = table_of(adata, n_samples=4000, normalize=False).set_index("names").loc[adata.var_names]
    rho = sv.tl.normalized_expression(adata, n_samples=50, library_size=1.0, inplace=False)
    by_donor = rho.groupby([adata.obs["treated"], adata.obs["donor"]]).mean()
    c = 0.5 * 8 / adata.X.sum()
    level = np.log2(by_donor + c)
    expected = level.loc["yes"].mean() - level.loc["no"].mean()
    np.testing.assert_allclose(table["lfc_model"], expected, atol=0.02)


def test_designs(changed):
    adata = donor_counts(paired=True, n_donors=5)
    adata.uns["scvi"] = changed.uns["scvi"]
    donor, treated = adata.obs["donor"], adata.obs["treated"]
    adata.obs["donor"] = donor.mask((donor == "d4") & (treated == "no"), "d5")  # d4 treated only, d5 untreated only
    table = table_of(adata)
    assert table["paired"].all()
    assert table[["donors1", "donors2"]].iloc[0].tolist() == [4, 4]
    table = table_of(adata, design="unpaired")
    assert not table["paired"].any()
    assert table[["donors1", "donors2"]].iloc[0].tolist() == [5, 5]
    mostly_one = adata.obs["donor"].astype(str).mask(~donor.isin(["d0", "d1"]), donor + treated)
    adata.obs["donor"] = mostly_one  # two donors of eight in both conditions
    assert not table_of(adata)["paired"].any()
    assert table_of(adata, design="paired")["donors1"].iloc[0] == 2


def test_donors_with_few_cells_are_left_out(changed):
    adata = changed.copy()
    adata.obs["donor"] = adata.obs["donor"].astype(object)
    of_donor = np.flatnonzero(adata.obs["donor"] == "d0")
    adata.obs.iloc[of_donor[9:], adata.obs.columns.get_loc("donor")] = None  # nine cells are left, the rest without one
    table = table_of(adata)
    assert table[["donors1", "donors2"]].iloc[0].tolist() == [4, 3]
    assert table["n_cells2"].iloc[0] == 3 * 60
    assert table_of(adata, min_cells=9)["donors2"].iloc[0] == 4


def test_groups_with_too_few_donors_are_left_out(changed, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("scanpy_scvi"), "propagate", True)
    adata = changed.copy()
    rare = (adata.obs["type"] == "a") & (adata.obs["donor"] != "d0")
    adata.obs["type"] = adata.obs["type"].mask(rare, "b")
    table = table_of(adata, groupby="type")
    assert set(table["group"]) == {"b"}
    assert "a in yes" in caplog.text
    with pytest.raises(ValueError, match=r"'a', 0 and 1 donors have at least 10 cells in 'yes' and 'no'"):
        table_of(adata, groupby="type", groups=["a", "b"])
    adata.obs["donor"] = "one"
    with pytest.raises(ValueError, match="2 a side"):
        table_of(adata)


def test_several_conditions(changed):
    adata = changed.copy()
    high = (adata.obs["treated"] == "yes") & adata.obs["donor"].isin(["d1", "d3"])
    adata.obs["treated"] = adata.obs["treated"].mask(high, "high")
    table = table_of(adata)
    assert table["condition"].unique().tolist() == ["high", "yes"]
    assert (table["reference"] == "no").all()
    assert len(sv.get.condition_test_df(adata, condition="high")) == N_GENES
    same_as = table_of(adata[adata.obs["treated"] != "high"].copy())
    of_yes = table[table["condition"] == "yes"].reset_index(drop=True)
    same(of_yes.drop(columns="condition"), same_as.drop(columns="condition"))


@pytest.fixture(scope="module")
def in_batches(quick_fit):
    """Unpaired donors, three in one batch and three in another on each side, and a strong batch effect."""
    adata = donor_counts(n_donors=6, donor_sd=0.1, lfc=1.0, n_changed=20)
    batch = pd.Series([f"b{int(d[1:]) // 2 % 2}" for d in adata.obs["donor"]], index=adata.obs_names)
    rng = np.random.default_rng(1)
    kept = np.exp(rng.normal(-1, 0.7, N_GENES)).clip(max=1)
    X = adata.X.toarray()
    X[batch == "b1"] = rng.binomial(X[batch == "b1"].astype(int), kept)
    adata.X = sparse.csr_matrix(X)
    adata.obs["batch"] = batch.to_numpy()
    quick_fit(adata, batch_key="batch")
    return adata


def test_batches_are_accounted_for(in_batches):
    adata = in_batches.copy()
    without, within = (table_of(adata, batch_correction=b).set_index("names") for b in (False, True))
    assert within["donor_sd"].median() < 0.7 * without["donor_sd"].median()
    truth = [f"gene_{g}" for g in range(20)]
    assert within.loc[truth, "is_de"].sum() >= max(15, without.loc[truth, "is_de"].sum())
    assert within["is_de"].sum() <= 25
    # least squares with a column for the batch, by hand
    obs = adata.obs[["donor", "treated", "batch"]].drop_duplicates()
    counts = adata.X.toarray().astype(float)
    counts = np.stack([counts[(adata.obs["donor"] == d).to_numpy()].sum(0) for d in obs["donor"]])
    level = levels_by_hand(counts)
    columns = np.stack([np.ones(12), obs["treated"] == "yes", obs["batch"] == "b1"], axis=1).astype(float)
    expected, residual, rank, _ = np.linalg.lstsq(columns, level, rcond=None)
    table = table_of(adata, normalize=False).set_index("names").loc[adata.var_names]
    np.testing.assert_allclose(table["lfc_donors"], expected[1], atol=1e-3)
    np.testing.assert_allclose(table["donor_sd"] ** 2, residual / (12 - rank), atol=1e-3)


def test_a_batch_that_tells_the_conditions_apart_is_refused(in_batches, quick_fit):
    adata = donor_counts()
    quick_fit(adata, batch_key="treated")
    with pytest.raises(ValueError, match=r"\('treated'\) tells 'yes' and 'no' apart"):
        table_of(adata)
    assert KEY not in adata.uns
    assert len(table_of(adata, batch_correction=False)) == N_GENES
    quick_fit(adata, batch_key="donor")  # every donor in one condition: the batch takes all
    with pytest.raises(ValueError, match="batch_correction=False"):
        table_of(adata)
    paired = donor_counts(paired=True)
    quick_fit(paired, batch_key="donor")  # a donor's own shift lies within the batch
    table = table_of(paired)
    same(table.drop(columns="lfc_model"), table_of(paired, batch_correction=False).drop(columns="lfc_model"))
    with pytest.raises(ValueError, match="each needs a draw"):
        table_of(paired, n_samples=3)


def test_reading(changed):
    everything = sv.get.condition_test_df(changed)
    assert everything["group"].unique().tolist() == ["a", "b"]
    found = sv.get.condition_test_df(changed, "a", min_abs_lfc=0.5, min_nonzero=0.3)
    keep = (everything["group"] == "a") & (everything["lfc"].abs() >= 0.5)
    keep &= everything[["nonzero1", "nonzero2"]].max(axis=1) >= 0.3
    assert 0 < len(found) == keep.sum() < len(everything) / 2
    assert sv.get.condition_test_df(changed, only_de=True)["is_de"].all()
    for options, words in (
        ({"group": "c"}, "no group 'c', but 'a', 'b'"),
        ({"condition": "maybe"}, "no condition 'maybe', but 'yes'"),
        ({"key": "other"}, f"Pass key='{KEY}'"),
    ):
        with pytest.raises(KeyError, match=words):
            sv.get.condition_test_df(changed, **options)
    with pytest.raises(KeyError, match=r"tl\.condition_test"):
        sv.get.condition_test_df(donor_counts())


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"condition_key": "treatedd"}, KeyError, "Did you mean 'treated'"),
        ({"donor_key": "doner"}, KeyError, "Did you mean 'donor'"),
        ({"groupby": "typ"}, KeyError, "Did you mean 'type'"),
        ({"reference": "never"}, KeyError, "no condition 'never'; it has 'no', 'yes'"),
        ({"groupby": "type", "groups": ["z"]}, KeyError, "has no group 'z'"),
        ({"groups": ["z"]}, KeyError, "without `groupby` has no group 'z'"),
        ({"groupby": "type", "groups": []}, ValueError, "`groups` is empty"),
        ({"key": "other"}, KeyError, "Fits are stored under 'scvi'"),
        ({"design": "nested"}, ValueError, "'auto', 'paired', 'unpaired'"),
        ({"design": "paired"}, ValueError, "2 with both"),
        ({"level": "raw"}, ValueError, "'observed', 'denoised'"),
        ({"delta": -1}, ValueError, "`delta` is -1"),
        ({"n_samples": 0}, ValueError, "`n_samples` is 0"),
        ({"min_counts": 10**8}, ValueError, "No gene has 100000000 counts"),
        ({"key_added": "a/b"}, ValueError, "without '/'"),
        ({"key_added": "scvi"}, ValueError, "holds no condition test"),
        ({"normalize": "yes"}, ValueError, "normalize"),
    ],
)
def test_refuses_with_a_reason_and_leaves_the_object(changed, options, error, words):
    adata = changed.copy()
    del adata.uns[KEY]
    before = set(adata.uns)
    options = {"condition_key": "treated"} | CALL | options
    with pytest.raises(error, match=words):
        sv.tl.condition_test(adata, **options)
    assert set(adata.uns) == before


def test_one_condition_cannot_be_compared(changed):
    adata = changed[changed.obs["treated"] == "no"].copy()
    with pytest.raises(ValueError, match="'no' alone"):
        table_of(adata)


@pytest.mark.real_data
def test_interferon_genes_in_monocytes(real_data):
    adata = real_data("kang_pbmc_ifnb")
    adata.obs["donor"] = adata.obs["donor"].astype(object).mask(adata.obs["donor"] == "unassigned")
    sv.tl.scvi(adata, max_epochs=5, normalized=False, progress=False)
    call = {"donor_key": "donor", "groupby": "cell_type", "reference": "ctrl", "n_samples": 100}
    sv.tl.condition_test(adata, "condition", groups=["CD14+ Monocytes"], **call)
    table = sv.get.condition_test_df(adata).set_index("names")
    assert table["paired"].all()
    assert table["donors1"].iloc[0] == 7  # of eight patients, one has fewer than ten monocytes
    genes = ["CXCL10", "IFIT1", "IFIT3", "RSAD2", "ISG15", "MX1"]
    assert table.loc[genes, "is_de"].all()
    assert (table.loc[genes, "lfc"] > 4).all()
    assert abs(table.loc[table["raw1"] > 1, "lfc_donors"].median()) < 0.5  # the typical gene stays


def test_a_group_that_cannot_be_tested_does_not_take_the_others_along(quick_fit, caplog):
    adata = donor_counts()
    rng = np.random.default_rng(0)
    adata.obs["type"] = rng.choice(["x", "y"], adata.n_obs)
    half = rng.integers(0, 2, adata.n_obs)
    in_y = adata.obs["treated"] == "yes"
    adata.obs["run"] = np.where(adata.obs["type"] == "y", in_y, half).astype(int).astype(str)
    quick_fit(adata, batch_key="run")
    with caplog.at_level("WARNING"):
        sv.tl.condition_test(adata, "treated", groupby="type", donor_key="donor", reference="no")
    assert "left out" in caplog.text
    assert set(sv.get.condition_test_df(adata)["group"]) == {"x"}
    with pytest.raises(ValueError, match="apart"):
        sv.tl.condition_test(adata, "treated", groupby="type", groups=["y"], donor_key="donor", reference="no")
