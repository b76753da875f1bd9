import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scanpy_scvi as sv

TABLES = ("genes", "cells", "calibration", "summary")
STATISTICS = ["mean", "variance", "zero_fraction", "cv"]


@pytest.fixture(scope="module")
def checked(fitted):
    adata = fitted.copy()
    sv.tl.posterior_predictive_check(adata, n_samples=15)
    return adata


def same(a, b):
    for name in TABLES:
        pd.testing.assert_frame_equal(a.uns["scvi_ppc"][name], b.uns["scvi_ppc"][name], check_exact=True)


def test_tables_hold_what_they_say(checked):
    found, x = checked.uns["scvi_ppc"], checked.X.toarray().astype(float)
    columns = [s + suffix for s in STATISTICS for suffix in ("", "_replicated", "_tail")]
    for name, index, axis in (("genes", checked.var_names, 0), ("cells", checked.obs_names, 1)):
        table = found[name]
        assert table.columns.to_list() == columns
        np.testing.assert_array_equal(table.index, index)
        np.testing.assert_allclose(table["mean"], x.mean(axis))
        np.testing.assert_allclose(table["variance"], x.var(axis))
        np.testing.assert_allclose(table["zero_fraction"], (x == 0).mean(axis), atol=1e-12)
        np.testing.assert_allclose(table["cv"], x.std(axis) / x.mean(axis))
        assert table[[c for c in columns if c.endswith("_tail")]].stack().between(0, 1, inclusive="neither").all()
    summary = found["summary"].set_index(["of", "statistic"])
    assert summary.index.to_list() == [(of, s) for of in ("genes", "cells") for s in STATISTICS]
    assert summary.loc[("genes", "mean"), "replicated"] == pytest.approx(found["genes"]["mean_replicated"].mean())
    assert (summary["expected"] == 1 / 16).all()
    above = found["genes"]["variance_tail"] < 0.75 / 16
    assert summary.loc[("genes", "variance"), "above"] == pytest.approx(above.mean())
    assert found["calibration"]["coverage"].between(0, 1).all()
    assert found["calibration"].query("genes == 'all'")["n_genes"].iloc[0] == checked.n_vars
    assert found["params"] == {"n_samples": 15, "key": "scvi", "random_state": 0}


@pytest.mark.filterwarnings("ignore:Writing zarr v2:UserWarning")  # anndata 0.12 on its own default
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_survives_a_file_and_works_on_it(checked, fitted, tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    getattr(checked, f"write_{suffix}")(path)
    again = getattr(ad, f"read_{suffix}")(path)
    same(again, checked)
    sv.tl.posterior_predictive_check(again, n_samples=15)
    same(again, checked)


def test_seed_name_and_view(checked, fitted):
    adata = fitted.copy()
    sv.tl.posterior_predictive_check(adata, n_samples=15, random_state=1, key_added="mine")
    assert "scvi_ppc" not in adata.uns
    other = adata.uns["mine"]["genes"]
    assert (other["mean"] == checked.uns["scvi_ppc"]["genes"]["mean"]).all()
    assert (other["mean_replicated"] != checked.uns["scvi_ppc"]["genes"]["mean_replicated"]).any()
    part = fitted[:50]
    sv.tl.posterior_predictive_check(part, n_samples=10)
    assert part.uns["scvi_ppc"]["cells"].shape == (50, 12)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"n_samples": 3}, ValueError, "`n_samples` is 3"),
        ({"random_state": -1}, ValueError, "random_state"),
        ({"key": "other"}, KeyError, "Fits are stored under 'scvi'"),
        ({"key_added": "a/b"}, ValueError, "without '/'"),
        ({"key_added": "scvi"}, ValueError, "holds no such result"),
        ({"device": "nothing"}, ValueError, "`device`"),
    ],
)
def test_refuses_with_a_reason_and_leaves_the_object(fitted, options, error, words):
    adata = fitted.copy()
    before = set(adata.uns)
    with pytest.raises(error, match=words):
        sv.tl.posterior_predictive_check(adata, **({"n_samples": 10} | options))
    assert set(adata.uns) == before


@pytest.mark.real_data
def test_tells_a_negative_binomial_from_a_poisson(real_data):
    """Kang et al. 2018. Of how many genes does the variance exceed that of all 20 replicates? By chance of 4.8 %."""
    adata = real_data("kang_pbmc_ifnb")
    adata = adata[:, np.argsort(-np.asarray(adata.X.mean(0)).ravel())[:500]].copy()
    above, covered = {}, {}
    for likelihood in ("nb", "poisson"):
        sv.tl.scvi(adata, batch_key="batch", likelihood=likelihood, normalized=False, max_epochs=20, progress=False)
        sv.tl.posterior_predictive_check(adata, n_samples=20)
        found = adata.uns["scvi_ppc"]
        above[likelihood] = found["summary"].set_index(["of", "statistic"]).loc[("genes", "variance"), "above"]
        covered[likelihood] = found["calibration"].query("genes == 'mean above 1'").set_index("level")["coverage"]
    assert above["nb"] < 0.08
    assert above["poisson"] > 0.3
    assert (covered["poisson"] < covered["poisson"].index - 0.005).all()
    assert (covered["nb"] > covered["nb"].index - 0.005).all()
