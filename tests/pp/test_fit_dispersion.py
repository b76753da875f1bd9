"""Genes with known parameters, tests with a known level, and real counts."""

from __future__ import annotations

import os
from pathlib import Path

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import optimize, sparse, stats

import scanpy_scvi as sv

DATA = os.environ.get("SCANPY_SCVI_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="SCANPY_SCVI_DATA names no folder")


def counts(n_cells=800, n_genes=300, theta=2.0, pi=0.0, low=0.5, high=8.0, seed=0) -> ad.AnnData:
    """Genes of one kind of cell, libraries that vary by 0.3 on the log scale; theta=inf is Poisson."""
    rng = np.random.default_rng(seed)
    factor = np.exp(rng.normal(0, 0.3, n_cells))
    mean = np.exp(rng.uniform(np.log(low), np.log(high), n_genes))
    rate = np.outer(factor / factor.mean(), mean)
    if np.isfinite(theta):
        rate = rng.gamma(theta, rate / theta)
    X = rng.poisson(rate) * (rng.random(rate.shape) >= pi)
    adata = ad.AnnData(sparse.csr_matrix(X, dtype=np.float32))
    adata.var["true_mean"] = mean
    adata.obs["factor"] = factor
    return adata


@pytest.mark.parametrize("theta", [0.5, 5.0])
def test_negative_binomial_parameters_come_back(theta):
    adata = counts(theta=theta)
    sv.pp.fit_dispersion(adata)
    ratio = adata.var["marginal_mean"] / adata.var["true_mean"]
    assert ratio.median() == pytest.approx(1, abs=0.02)
    assert adata.var["marginal_dispersion"].median() == pytest.approx(theta, rel=0.05)
    assert (adata.var["marginal_padj_overdispersion"] < 0.05).mean() > 0.9
    assert adata.uns["marginal"]["likelihood"] == "nb"


def test_zero_inflation_comes_back():
    adata = counts(pi=0.3, low=2, high=20, theta=4.0)
    sv.pp.fit_dispersion(adata, likelihood="zinb")
    assert adata.var["marginal_zero_inflation"].median() == pytest.approx(0.3, abs=0.02)
    assert adata.var["marginal_dispersion"].median() == pytest.approx(4, rel=0.05)
    # the mean is that of the part that is not inflated; libraries are totals after the loss
    assert (adata.var["marginal_mean"] / adata.var["true_mean"]).median() == pytest.approx(1, abs=0.03)
    assert adata.uns["marginal"]["share_zero_inflated"] > 0.95
    assert adata.uns["marginal"]["likelihood"] == "zinb"
    assert "the counts ask for likelihood='zinb'" in adata.uns["marginal"]["verdict"]


def test_poisson_counts_ask_for_poisson():
    adata = counts(theta=np.inf)
    sv.pp.fit_dispersion(adata)
    assert adata.uns["marginal"]["likelihood"] == "poisson"
    assert adata.uns["marginal"]["share_overdispersed"] < 0.02


@pytest.mark.parametrize(
    ("null", "column"),
    [({"theta": np.inf}, "pval_overdispersion"), ({"theta": 3.0, "low": 3.0}, "pval_zero_inflation")],
)
def test_the_tests_keep_their_level(null, column):
    """Under the hypothesis 5 % of the p-values lie below 0.05, and half of them are one."""
    adata = counts(n_genes=1000, seed=1, **null)
    sv.pp.fit_dispersion(adata)
    pval = adata.var[f"marginal_{column}"]
    assert (pval < 0.05).mean() == pytest.approx(0.05, abs=0.025)
    assert (pval == 1).mean() == pytest.approx(0.5, abs=0.08)
    assert (adata.var[f"marginal_{column.replace('pval', 'padj')}"] < 0.05).mean() < 0.005


def test_agrees_with_a_plain_optimiser_on_scipys_distribution():
    adata = counts(n_cells=200, n_genes=12)
    sv.pp.fit_dispersion(adata, size_factor_key="factor")
    x, s = adata.X.toarray()[:, 2], (adata.obs["factor"] / adata.obs["factor"].mean()).to_numpy()

    def loss(point):
        mean, theta = np.exp(point)
        return -stats.nbinom.logpmf(x, theta, theta / (theta + s * mean)).sum()

    best = optimize.minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10})
    found = adata.var.iloc[2]
    np.testing.assert_allclose([found["marginal_mean"], found["marginal_dispersion"]], np.exp(best.x), rtol=1e-5)
    poisson = stats.poisson.logpmf(x, s * x.sum() / s.sum()).sum()
    assert found["marginal_lr_overdispersion"] == pytest.approx(2 * (-best.fun - poisson), rel=1e-6)
    assert found["marginal_pval_overdispersion"] == pytest.approx(
        stats.chi2.sf(found["marginal_lr_overdispersion"], 1) / 2
    )


def test_what_is_written():
    adata = counts(n_genes=20)
    before = set(adata.var)
    assert sv.pp.fit_dispersion(adata, layer=None, key_added="m") is None
    tests = ["lr", "pval", "padj"]
    expected = ["m_mean", "m_dispersion", "m_variance", "m_variance_nb", "m_variance_zinb"]
    expected += [f"m_{t}_{of}" for of in ("overdispersion", "zero_inflation") for t in tests]
    assert set(adata.var) - before == set(expected)
    assert set(adata.uns) == {"m"}
    entry = adata.uns["m"]
    assert entry["params"] == {"likelihood": "nb", "mask_var": "auto"}
    assert (entry["n_cells"], entry["n_genes"]) == (800, 20)
    total, n = entry["log_likelihood"], 800
    for name, k in (("poisson", 1), ("nb", 2), ("zinb", 3)):
        assert entry["aic"][name] == pytest.approx(2 * 20 * k - 2 * total[name])
        assert entry["bic"][name] == pytest.approx(20 * k * np.log(n) - 2 * total[name])
    assert total["poisson"] < total["nb"] <= total["zinb"]
    lr = adata.var["m_lr_overdispersion"].sum()
    assert lr == pytest.approx(2 * (total["nb"] - total["poisson"]))


def test_variances_are_mean_squares_and_what_the_fits_expect_of_them():
    """Against a dense array and SciPy's variances, cell by cell."""
    adata = counts(n_cells=300, n_genes=12, pi=0.2, low=2, high=20, theta=3.0)
    sv.pp.fit_dispersion(adata, size_factor_key="factor", key_added="nb")
    sv.pp.fit_dispersion(adata, size_factor_key="factor", likelihood="zinb", key_added="zinb")
    s = (adata.obs["factor"] / adata.obs["factor"].mean()).to_numpy()[:, None]
    X = adata.X.toarray().astype(float)
    expected_count = s * X.mean(axis=0)
    np.testing.assert_allclose(adata.var["nb_variance"], ((X - expected_count) ** 2).mean(axis=0), rtol=1e-10)

    mean, theta, pi = adata.var[["zinb_mean", "zinb_dispersion", "zinb_zero_inflation"]].to_numpy().T
    part = stats.nbinom(theta, theta / (theta + s * mean))
    second_moment = (1 - pi) * (part.var() + part.mean() ** 2)
    first_moment = (1 - pi) * part.mean()
    expected = (second_moment - 2 * first_moment * expected_count + expected_count**2).mean(axis=0)
    np.testing.assert_allclose(adata.var["zinb_variance_zinb"], expected, rtol=1e-10)

    mean, theta = adata.var[["nb_mean", "nb_dispersion"]].to_numpy().T
    part = stats.nbinom(theta, theta / (theta + s * mean))
    expected = (part.var() + (part.mean() - expected_count) ** 2).mean(axis=0)
    np.testing.assert_allclose(adata.var["nb_variance_nb"], expected, rtol=1e-10)
    for name in ("variance", "variance_nb", "variance_zinb"):
        np.testing.assert_array_equal(adata.var[f"nb_{name}"], adata.var[f"zinb_{name}"])


def test_the_right_family_has_the_observed_variance_and_poisson_has_the_mean():
    for options, name in (({"theta": 2.0}, "nb"), ({"pi": 0.3, "low": 2, "high": 20, "theta": 4.0}, "zinb")):
        adata = counts(**options)
        sv.pp.fit_dispersion(adata, size_factor_key="factor")
        ratio = adata.var[f"marginal_variance_{name}"] / adata.var["marginal_variance"]
        assert ratio.median() == pytest.approx(1, abs=0.03)
    poisson = counts(theta=np.inf)
    sv.pp.fit_dispersion(poisson, size_factor_key="factor")
    ratio = poisson.var["marginal_variance"] / np.asarray(poisson.X.mean(axis=0)).ravel()
    assert ratio.median() == pytest.approx(1, abs=0.01)


def test_a_second_call_replaces_the_first():
    adata = counts(n_genes=20)
    sv.pp.fit_dispersion(adata, likelihood="zinb")
    assert "marginal_zero_inflation" in adata.var
    sv.pp.fit_dispersion(adata)
    assert "marginal_zero_inflation" not in adata.var
    assert adata.uns["marginal"]["params"]["likelihood"] == "nb"


def test_genes_outside_the_mask_and_genes_without_counts():
    adata = counts(n_genes=30)
    matrix = adata.X.tolil()
    matrix[:, 4] = 0
    adata.X = matrix.tocsr()
    adata.var["highly_variable"] = np.arange(30) < 20
    sv.pp.fit_dispersion(adata, likelihood="zinb")
    written = adata.var.filter(like="marginal_")
    assert written.iloc[20:].isna().all(axis=None)
    assert written.iloc[4]["marginal_mean"] == 0
    assert written.iloc[4].drop("marginal_mean").isna().all()
    assert written.drop(index="4").iloc[:19].notna().all(axis=None)
    assert adata.uns["marginal"]["n_genes"] == 19


def test_the_library_is_that_of_the_modelled_genes():
    adata = counts(n_genes=60)
    mask = np.arange(60) < 40
    sv.pp.fit_dispersion(adata, mask_var=mask)
    alone = adata[:, mask].copy()
    sv.pp.fit_dispersion(alone, mask_var=None)
    pd.testing.assert_frame_equal(alone.var.filter(like="m_"), adata.var[mask].filter(like="m_"))


@pytest.mark.parametrize("kind", ["csr_array", "csc", "dense", "int64", "view", "layer", "backed"])
def test_any_input(kind, tmp_path):
    adata = counts(n_genes=15, n_cells=200)
    expected = sv.pp.fit_dispersion(adata, copy=True).var
    options = {}
    if kind in ("csr_array", "csc", "dense", "int64"):
        make = {"csr_array": sparse.csr_array, "csc": sparse.csc_matrix, "dense": sparse.csr_matrix.toarray}
        adata.X = make.get(kind, lambda x: x.toarray().astype(np.int64))(adata.X)
    elif kind == "view":
        adata = counts(n_genes=15, n_cells=230)
        expected = sv.pp.fit_dispersion(adata[30:], copy=True).var
        adata = adata[30:]
    elif kind == "layer":
        adata.layers["counts"], adata.X = adata.X, np.log1p(adata.X)
        options = {"layer": "counts"}
    else:
        adata.write_h5ad(tmp_path / "x.h5ad")
        adata = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    sv.pp.fit_dispersion(adata, **options)
    pd.testing.assert_frame_equal(adata.var.filter(like="marginal_"), expected.filter(like="marginal_"))
    assert not adata.is_view
    if kind == "backed":
        adata.file.close()


@pytest.fixture
def three_jobs():
    before = sc.settings.n_jobs
    sc.settings.n_jobs = 3
    yield
    sc.settings.n_jobs = before


@pytest.mark.usefixtures("three_jobs")
def test_threads_and_blocks_change_nothing(monkeypatch):
    adata = counts(n_genes=40, n_cells=100)
    expected = sv.pp.fit_dispersion(adata, copy=True).var  # in one block
    monkeypatch.setattr("scanpy_scvi.pp._gene_fits.BLOCK_ENTRIES", 700)
    sv.pp.fit_dispersion(adata)
    pd.testing.assert_frame_equal(adata.var, expected)


def test_a_copy_leaves_the_original():
    adata = counts(n_genes=10)
    columns = list(adata.var)
    changed = sv.pp.fit_dispersion(adata, copy=True)
    assert list(adata.var) == columns
    assert len(adata.uns) == 0
    assert "marginal_mean" in changed.var


def log_values(adata):
    adata.X = np.log1p(adata.X)


def one_empty_cell(adata):
    matrix = adata.X.tolil()
    matrix[3] = 0
    adata.X = matrix.tocsr()


@pytest.mark.parametrize(
    ("change", "call", "error", "words"),
    [
        (log_values, {}, ValueError, "non-integer values"),
        (one_empty_cell, {}, ValueError, "have no counts in any gene \\(first: '3'\\)"),
        (lambda a: None, {"layer": "counts"}, KeyError, "'counts' was not found in `adata.layers`"),
        (lambda a: None, {"mask_var": "hvg"}, KeyError, "'hvg' was not found in `adata.var`"),
        (lambda a: None, {"size_factor_key": "size"}, KeyError, "'size' was not found in `adata.obs`"),
        (lambda a: None, {"likelihood": "poisson"}, ValueError, "one of 'nb', 'zinb' was expected"),
        (lambda a: a.uns.update(marginal={"x": 1}), {}, ValueError, "`adata.uns\\['marginal'\\]` exists"),
        (lambda a: a.var.insert(0, "marginal_mean", 1.0), {}, ValueError, "`adata.var\\['marginal_mean'\\]` exists"),
    ],
)
def test_errors_leave_the_object_as_it_was(change, call, error, words):
    adata = counts(n_genes=10, n_cells=50)
    change(adata)
    var, uns = adata.var.copy(), dict(adata.uns)
    with pytest.raises(error, match=words):
        sv.pp.fit_dispersion(adata, **call)
    pd.testing.assert_frame_equal(adata.var, var)
    assert dict(adata.uns) == uns


def test_a_fitted_model_is_not_overwritten():
    adata = counts(n_genes=20, n_cells=60)
    sv.tl.scvi(adata, max_epochs=1, progress=False)
    with pytest.raises(ValueError, match=r"`adata.uns\['scvi'\]` exists"):
        sv.pp.fit_dispersion(adata, key_added="scvi")


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")  # anndata announces its next default
def test_results_survive_a_file(form, tmp_path):
    adata = counts(n_genes=20)
    adata.var["highly_variable"] = np.arange(20) > 2
    sv.pp.fit_dispersion(adata, likelihood="zinb", size_factor_key="factor")
    path = tmp_path / f"fit.{form}"
    (adata.write_h5ad if form == "h5ad" else adata.write_zarr)(path)
    back = ad.read_h5ad(path) if form == "h5ad" else ad.read_zarr(path)
    pd.testing.assert_frame_equal(back.var, adata.var)
    assert back.uns["marginal"] == adata.uns["marginal"]
    sv.pp.fit_dispersion(back)  # knows its own results again
    assert back.uns["marginal"]["params"]["likelihood"] == "nb"


def test_the_closing_line(capsys):
    adata = counts(n_genes=20)
    sv.pp.fit_dispersion(adata)
    (text,) = capsys.readouterr().err.splitlines()
    assert text.startswith("the counts ask for likelihood='nb' (BIC per cell: poisson +")
    assert "added `.var['marginal_*']`, `.uns['marginal']`" in text


def test_can_be_drawn(monkeypatch):
    mpl.use("agg")
    adata = counts(n_genes=20)
    sv.pp.fit_dispersion(adata)
    ax = sv.pl.dispersion(adata, "marginal", show=False)
    offsets = np.asarray(ax.collections[0].get_offsets())
    np.testing.assert_allclose(offsets, adata.var[["marginal_mean", "marginal_dispersion"]])
    panels = sv.pl.dispersion(adata, "marginal", kind="variance", show=False)
    offsets = np.asarray(panels[0].collections[0].get_offsets())
    np.testing.assert_allclose(offsets, adata.var[["marginal_mean", "marginal_variance"]])


@pytest.mark.real_data
@needs_data
@pytest.mark.parametrize(
    ("file", "most_inflated"),
    [("pbmc3k", 0.02), ("hspc_4libraries", 0.08), ("cellmix_5batch", 0.04), ("kang_pbmc_ifnb", 0.05)],
)
def test_molecule_counts_ask_for_a_negative_binomial(file, most_inflated):
    """As Svensson (2020) found for droplets: overdispersed, and hardly a gene with more zeros than that explains."""
    adata = ad.read_h5ad(Path(DATA) / f"{file}.h5ad")
    logs = sc.pp.log1p(sc.pp.normalize_total(adata, copy=True), copy=True)
    sc.pp.highly_variable_genes(logs, n_top_genes=1000)
    adata.var["highly_variable"] = logs.var["highly_variable"]
    adata = adata[np.asarray(adata[:, adata.var["highly_variable"]].X.sum(1)).ravel() > 0].copy()
    sv.pp.fit_dispersion(adata)
    found = adata.uns["marginal"]
    assert found["likelihood"] == "nb"
    assert found["share_overdispersed"] > 0.85
    assert found["share_zero_inflated"] < most_inflated
