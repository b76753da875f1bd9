import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import torch
from scipy import sparse, stats

import scanpy_scvi as sv
from scanpy_scvi.posterior.generation import LatentCells, draw_counts
from scanpy_scvi.store.load import load


def same(a, b):
    assert (a.X != b.X).nnz == 0
    np.testing.assert_array_equal(a.obsm["X_scvi"], b.obsm["X_scvi"])
    assert a.obs.equals(b.obs)


def check_counts(new):
    assert sparse.issparse(new.X)
    assert new.X.format == "csr"
    assert new.X.dtype == np.float32
    assert (new.X.data == np.floor(new.X.data)).all()
    assert new.X.data.min() >= 1
    assert np.asarray(new.X.sum(1)).min() > 0


def test_cells_there_are(fitted):
    before = fitted.copy()
    new = sv.tl.sample(fitted, groupby="label")
    check_counts(new)
    np.testing.assert_array_equal(new.obs_names, fitted.obs_names)
    np.testing.assert_array_equal(new.var_names, fitted.var_names)
    for column in ("batch", "label"):
        np.testing.assert_array_equal(new.obs[column], fitted.obs[column])
    totals = np.asarray(fitted.X.sum(1)).ravel()
    np.testing.assert_allclose(new.obs["scvi_library"], totals, rtol=1e-5)
    assert new.obs["generated"].all()
    drawn, v = new.obsm["X_scvi"], fitted.obsm["scvi_latent_var"]
    assert stats.kstest(((drawn - fitted.obsm["X_scvi"]) / np.sqrt(v)).ravel(), "norm").pvalue > 1e-3
    assert stats.spearmanr(np.asarray(new.X.sum(1)).ravel(), totals).statistic > 0.5
    assert set(fitted.uns) == set(before.uns)
    assert fitted.obs.equals(before.obs)


def test_new_cells(fitted):
    new = sv.tl.sample(fitted, 60, groupby="label", proportions={"label_0": 2, "label_2": 1})
    check_counts(new)
    assert new.shape == (60, fitted.n_vars)
    assert new.obs["label"].value_counts().to_dict() == {"label_0": 40, "label_2": 20, "label_1": 0}
    assert new.obs["label"].iloc[:40].nunique() == 2  # in random order
    assert new.obs_names.is_unique
    assert set(new.obs) == {"batch", "label", "generated", "scvi_library"}
    assert new.uns["scvi_sample"]["groups"].tolist() == ["label_0", "label_2"]
    observed = sv.tl.sample(fitted, 90, groupby="label").obs["label"].value_counts(normalize=True)
    np.testing.assert_allclose(observed.sort_index(), 1 / 3, atol=0.02)
    assert sv.tl.sample(fitted, 1).shape == (1, fitted.n_vars)


def test_seed_decides_and_files_keep_it(fitted, tmp_path):
    first = sv.tl.sample(fitted, 50, groupby="label", random_state=1)
    state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    fitted.write_h5ad(tmp_path / "fit.h5ad")
    again = sv.tl.sample(ad.read_h5ad(tmp_path / "fit.h5ad"), 50, groupby="label", random_state=1)
    assert torch.equal(torch.get_rng_state(), state[0])
    np.testing.assert_array_equal(np.random.get_state()[1], state[1])  # noqa: NPY002
    same(first, again)
    other = sv.tl.sample(fitted, 50, groupby="label", random_state=2)
    assert (first.X != other.X).nnz > 0
    first.write_h5ad(tmp_path / "new.h5ad")
    back = ad.read_h5ad(tmp_path / "new.h5ad")
    same(back, first)
    assert back.uns["scvi_sample"]["params"]["n_cells"] == 50


def test_library_sizes(fitted):
    totals = np.asarray(fitted.X.sum(1)).ravel()
    fixed = sv.tl.sample(fitted, 300, library=500.0)
    assert fixed.obs["scvi_library"].to_numpy() == pytest.approx(500)
    assert abs(np.asarray(fixed.X.sum(1)).mean() - 500) < 25
    observed = sv.tl.sample(fitted, 300, library="observed")
    assert np.isin(observed.obs["scvi_library"].round(2), totals.round(2)).all()
    joint = sv.tl.sample(fitted, 300)
    assert stats.ks_2samp(joint.obs["scvi_library"], totals).pvalue > 1e-3
    own = sv.tl.sample(fitted, library=50)
    assert own.obs["scvi_library"].to_numpy() == pytest.approx(50)


def test_batches_are_as_observed_within_a_label(simulated, quick_fit):
    adata = simulated.copy()
    only = adata.obs["label"] == "label_0"
    adata = adata[~(only & (adata.obs["batch"] == "batch_1"))].copy()
    quick_fit(adata)
    new = sv.tl.sample(adata, 200, groupby="label")
    assert set(new.obs.loc[new.obs["label"] == "label_0", "batch"]) == {"batch_0"}
    others = new.obs["batch"][new.obs["label"] == "label_1"].value_counts(normalize=True)
    assert 0.25 < others["batch_0"] < 0.75


def test_all_that_a_model_may_use(adata, quick_fit):
    adata.obs["factor"] = np.asarray(adata.X.sum(1)).ravel() * 3
    quick_fit(
        adata,
        categorical_covariate_keys=["donor"],
        continuous_covariate_keys=["age"],
        labels_key="label",
        dispersion="gene-label",
        size_factor_key="factor",
        likelihood="zinb",
        mask_var=np.arange(100) < 60,
    )
    new = sv.tl.sample(adata, 80)
    assert new.n_vars == 60
    np.testing.assert_array_equal(new.var_names, adata.var_names[:60])
    assert set(new.obs) == {"batch", "label", "donor", "age", "generated", "scvi_library", "factor"}
    donor_of = adata.obs.groupby("age", observed=True)["donor"].unique()
    assert all(d in donor_of[a] for a, d in zip(new.obs["age"], new.obs["donor"], strict=True))
    new.uns["scvi"] = adata.uns["scvi"]  # the model takes its own cells
    table = load(new, "scvi").read(new)
    np.testing.assert_allclose(np.exp(table.log_size_factor), new.obs["scvi_library"], rtol=1e-4)
    quick_fit(adata, library="latent")
    latent = sv.tl.sample(adata)
    assert (latent.obs["scvi_library"] != sv.tl.sample(adata, random_state=1).obs["scvi_library"]).all()


def test_cells_without_a_group(fitted):
    adata = fitted.copy()
    adata.obs["half"] = adata.obs["label"].astype(object).where(adata.obs["label"] != "label_1")
    new = sv.tl.sample(adata, 40, groupby="half")
    assert set(new.obs["half"]) == {"label_0", "label_2"}
    assert sv.tl.sample(adata, groupby="half").obs["half"].isna().sum() == 40
    one = fitted.copy()
    one.obs["single"] = np.where(np.arange(120) == 5, "one", "rest")
    alone = sv.tl.sample(one, 10, groupby="single", proportions={"one": 1})
    assert (alone.obs["batch"] == one.obs["batch"].iloc[5]).all()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"n_cells": 0}, ValueError, "`n_cells` is 0"),
        ({"groupby": "labell"}, KeyError, "Did you mean 'label'"),
        ({"proportions": {"label_0": 1}}, ValueError, "along with it"),
        ({"groupby": "label", "proportions": {"nobody": 1}}, KeyError, "has 'nobody'"),
        ({"groupby": "label", "proportions": {"label_0": -1}}, ValueError, "proportions"),
        ({"groupby": "label", "proportions": {"label_0": 0}}, ValueError, "positive share"),
        ({"groupby": "label", "proportions": [1, 2]}, TypeError, "mapping"),
        ({"library": "mine"}, ValueError, "'joint', 'observed'"),
        ({"library": -3}, ValueError, "`library` is -3"),
        ({"library": 1e-9}, ValueError, "larger libraries"),
        ({"key": "other"}, KeyError, "Fits are stored under 'scvi'"),
        ({"random_state": -1}, ValueError, "random_state"),
    ],
)
def test_refuses_with_a_reason(fitted, options, error, words):
    with pytest.raises(error, match=words):
        sv.tl.sample(fitted, **({"n_cells": 5} | options))


def test_a_forest_cannot_tell_counts_of_the_model_from_each_other(fitted):
    """U14: what the model drew is real, what it draws again is generated; over splits, AUROC is 0.50 +- 0.05."""
    real, again, other = (sv.tl.sample(fitted, 600, random_state=seed).X for seed in (1, 2, 3))
    found = [sv.metrics.generation(real, again, control=other, n_trees=50, random_state=seed) for seed in range(4)]
    for name in ("forest_log", "forest_raw"):
        for kind in ("generated", "control"):
            assert abs(np.mean([getattr(getattr(f, kind), name) for f in found]) - 0.5) < 0.05
    assert abs(found[0].generated.mmd) < 0.003
    assert found[0].generated.lisi > 1.85


def log_normalised(adata):
    x = adata.X.toarray().astype(float)
    return np.log1p(1e4 * x / x.sum(1, keepdims=True))


@pytest.mark.real_data
def test_new_cells_are_like_held_out_ones(real_data):
    """Means, correlations and markers of types agree with cells that the fit has not seen; with z ~ N(0, I) less so."""
    adata = real_data("mouse_bladder")
    sc.pp.filter_cells(adata, min_counts=100)
    adata = adata[:, np.argsort(-np.asarray((adata.X > 0).mean(0)).ravel())[:500]].copy()
    adata = adata[np.asarray(adata.X.sum(1)).ravel() > 0].copy()
    rows = np.random.default_rng(0).permutation(adata.n_obs)
    train, test = adata[rows[700:]].copy(), adata[rows[:700]].copy()
    sv.tl.scvi(train, normalized=False, progress=False, max_epochs=40)
    new = sv.tl.sample(train, 700, groupby="cell_type")
    fitted, rng = load(train, "scvi"), np.random.default_rng(0)
    donors = rng.integers(train.n_obs, size=700)
    library = np.log(np.asarray(train.X.sum(1)).ravel()[donors]).astype(np.float32)
    z = rng.normal(size=(700, new.obsm["X_scvi"].shape[1])).astype(np.float32)
    at_prior = draw_counts(
        fitted.model,
        fitted.read(train),
        LatentCells(z, library, donors),
        random_state=0,
        device=torch.device("cpu"),
    )
    real, ours, prior, control = (log_normalised(a) for a in (test, new, ad.AnnData(at_prior), train))
    assert np.corrcoef(real.mean(0), ours.mean(0))[0, 1] > 0.99
    top = np.argsort(-real.var(0))[:80]
    pairs = np.triu_indices(80, 1)
    by_ours, by_prior = (
        np.abs(np.corrcoef(real[:, top].T)[pairs] - np.corrcoef(x[:, top].T)[pairs]).mean() for x in (ours, prior)
    )
    assert by_ours < 0.06
    assert by_prior > 1.5 * by_ours
    for name in test.obs["cell_type"].value_counts().index[:5]:
        mine = (test.obs["cell_type"] == name).to_numpy()
        markers = np.argsort(real[~mine].mean(0) - real[mine].mean(0))[:20]
        theirs, best = (x[(a.obs["cell_type"] == name).to_numpy()] for x, a in ((ours, new), (control, train)))
        agreement = [np.corrcoef(real[mine].mean(0), x.mean(0))[0, 1] for x in (theirs, best)]
        assert agreement[0] > agreement[1] - 0.02
        rise = [x[:, markers].mean() - a[:, markers].mean() for x, a in ((theirs, ours), (best, control))]
        assert rise[0] > 0.85 * rise[1]
