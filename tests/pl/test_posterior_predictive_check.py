import anndata as ad
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from pictures import assert_same_picture

import scanpy_scvi as sv

STATISTICS = ("mean", "variance", "zero_fraction", "cv")
LEVELS = np.r_[np.arange(1, 10) / 10, 0.95]


@pytest.fixture(autouse=True)
def _no_windows():
    mpl.use("agg")
    yield
    plt.close("all")


@pytest.fixture
def checked():
    """A result as `tl` stores it, of counts that nobody drew."""
    rng, n = np.random.default_rng(0), 300
    mean = np.exp(rng.normal(-1, 1.5, n))
    variance = mean + mean**2 / np.exp(rng.normal(0, 1, n))
    observed = {"mean": mean, "variance": variance, "zero_fraction": np.exp(-mean), "cv": np.sqrt(variance) / mean}
    table = {}
    for name, values in observed.items():
        less = name in {"variance", "cv"}
        wrong = rng.random(n) < 0.2 if less else np.zeros(n, bool)
        table[name] = values
        table[f"{name}_replicated"] = values * np.exp(rng.normal(0, 0.05, n)) * np.where(wrong, 0.5, 1)
        table[f"{name}_tail"] = np.where(wrong, 0.5 / 26, rng.uniform(0.1, 0.9, n))
    table["zero_fraction_replicated"] = np.clip(table["zero_fraction_replicated"], 0, 1)
    table["cv"][0] = table["cv_replicated"][0] = table["cv_tail"][0] = np.nan  # a gene without counts
    groups = ["all", "mean below 0.1", "mean 0.1 to 1", "mean above 1"]
    calibration = pd.concat(
        pd.DataFrame(
            {"genes": g, "n_genes": 100, "level": LEVELS, "coverage": LEVELS + 0.15 * i * LEVELS * (1 - LEVELS)}
        )
        for i, g in enumerate(groups)
    )
    adata = ad.AnnData(np.ones((3, 2), np.float32))
    adata.uns["mine"] = {"genes": pd.DataFrame(table), "calibration": calibration, "params": {"n_samples": 25}}
    return adata


def test_points_and_curves_are_the_stored_ones(checked):
    axes = sv.pl.posterior_predictive_check(checked, "mine", show=False)
    genes, calibration = (checked.uns["mine"][name] for name in ("genes", "calibration"))
    for ax, name in zip(axes, STATISTICS, strict=False):
        inside, outside = (np.asarray(c.get_offsets()) for c in ax.collections)
        drawn = np.concatenate([inside, outside])
        stored = genes[[name, f"{name}_replicated"]].dropna().to_numpy()
        np.testing.assert_array_equal(drawn[np.argsort(drawn[:, 0])], stored[np.argsort(stored[:, 0])])
        assert len(outside) == (genes[f"{name}_tail"] < 0.02).sum()
        assert ax.get_xlabel() == "observed"
    curves = {line.get_label(): line.get_ydata() for line in axes[-1].get_lines()[1:]}
    for group, rows in calibration.groupby("genes"):
        np.testing.assert_array_equal(curves[group], rows["coverage"])


def test_takes_axes_and_returns_what_is_asked(checked):
    given = plt.subplots(1, 5)[1]
    assert sv.pl.posterior_predictive_check(checked, "mine", ax=given, show=False) == list(given)
    assert len(sv.pl.posterior_predictive_check(checked, "mine", return_fig=True).axes) == 5
    with pytest.raises(ValueError, match="5 were expected"):
        sv.pl.posterior_predictive_check(checked, "mine", ax=given[:2])


def test_without_a_result(checked):
    with pytest.raises(KeyError, match="Pass key='mine'"):
        sv.pl.posterior_predictive_check(checked)
    with pytest.raises(KeyError, match=r"Run sv\.tl\.posterior_predictive_check"):
        sv.pl.posterior_predictive_check(ad.AnnData(np.ones((2, 2))))


def test_picture(checked):
    figure = sv.pl.posterior_predictive_check(checked, "mine", return_fig=True)
    assert_same_picture(figure, "posterior_predictive_check")
