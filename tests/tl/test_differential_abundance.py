import anndata as ad
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

import scanpy_scvi as sv

KEY = "scvi_abundance"


@pytest.fixture
def sampled(fitted):
    """Six samples of 20 cells, three of each condition."""
    adata = fitted.copy()
    adata.obs["sample"] = [f"s{i % 6}/x" for i in range(adata.n_obs)]
    adata.obs["condition"] = [("ctrl", "stim")[i % 6 >= 3] for i in range(adata.n_obs)]
    return adata


def compare(adata, **options):
    defaults = {"condition_key": "condition", "reference": "ctrl"}
    sv.tl.differential_abundance(adata, "sample", **(defaults | options))


def test_densities_and_ratio_are_those_of_the_formula(sampled):
    compare(sampled, bandwidth=0.2)
    z, v = (sampled.obsm[k].astype(float) for k in ("X_scvi", "scvi_latent_var"))
    log_p = norm.logpdf(z[:, None], z, np.sqrt(v + 0.04)).sum(2)
    np.fill_diagonal(log_p, -np.inf)
    samples, own = list(sampled.uns[KEY]["samples"]), sampled.obs["sample"].to_numpy()
    assert samples == sorted(set(own))
    expected = np.stack([logsumexp(log_p[:, own == s], axis=1) - np.log(20 - (own == s)) for s in samples], axis=1)
    np.testing.assert_allclose(sampled.obsm[KEY], expected, rtol=1e-5)
    ratio = logsumexp(expected[:, 3:], axis=1) - logsumexp(expected[:, :3], axis=1)
    np.testing.assert_allclose(sampled.obs[f"{KEY}_lfc"], ratio / np.log(2), atol=1e-4)
    assert list(sampled.uns[KEY]["conditions"]) == ["ctrl"] * 3 + ["stim"] * 3
    assert (sampled.obs[f"{KEY}_lfc_low"] <= sampled.obs[f"{KEY}_lfc"]).all()
    assert (sampled.obs[f"{KEY}_lfc_high"] >= sampled.obs[f"{KEY}_lfc"]).all()


def test_a_planted_loss_is_found_with_its_sign_and_size(cell_lines):
    """Three quarters of one cell line removed from half of the samples: log ratios of the shares of cells."""
    rng = np.random.default_rng(0)
    adata = cell_lines.copy()
    adata.obs["sample"] = [f"s{i}" for i in rng.integers(0, 6, adata.n_obs)]
    adata.obs["condition"] = adata.obs["sample"].isin(["s3", "s4", "s5"]).map({True: "stim", False: "ctrl"})
    line, stim = adata.obs["cell_type"] == "H1975", adata.obs["condition"] == "stim"
    adata = adata[~(line & stim & (rng.random(adata.n_obs) < 0.75))].copy()
    sv.tl.scvi(adata, "batch", max_epochs=15, normalized=False, progress=False)
    compare(adata)
    line = (adata.obs["cell_type"] == "H1975").to_numpy()
    shares = adata.obs.assign(line=line).groupby(["condition", "sample"], observed=True)["line"].mean()
    shares = shares.groupby("condition").mean()
    expected = np.log2(shares["stim"] / shares["ctrl"]), np.log2((1 - shares["stim"]) / (1 - shares["ctrl"]))
    lfc = adata.obs[f"{KEY}_lfc"].to_numpy()
    assert expected[0] < -1
    assert abs(np.median(lfc[line]) - expected[0]) < 0.3
    assert abs(np.median(lfc[~line]) - expected[1]) < 0.3
    assert (adata.obs[f"{KEY}_lfc_high"][line] < 0).mean() > 0.75


def test_without_conditions_there_are_densities_only(sampled):
    compare(sampled)
    sv.tl.differential_abundance(sampled, "sample")
    assert sampled.obsm[KEY].shape == (120, 6)
    assert not [name for name in sampled.obs if name.startswith(KEY)]
    assert "conditions" not in sampled.uns[KEY]


def test_a_side_with_one_sample_has_no_range(sampled):
    sampled.obs["condition"] = np.where(sampled.obs["sample"] == "s0/x", "ctrl", "stim")
    compare(sampled)
    assert [name for name in sampled.obs if name.startswith(KEY)] == [f"{KEY}_lfc"]


def test_cells_without_a_sample_are_looked_at_but_in_no_mixture(sampled):
    whole = sampled.copy()
    compare(whole)
    part = sampled.copy()
    part.obs.loc[part.obs["sample"] == "s5/x", "sample"] = None
    compare(part)
    np.testing.assert_array_equal(part.obsm[KEY], whole.obsm[KEY][:, :5])


def test_a_cap_is_seeded(sampled):
    found = []
    for seed in (0, 0, 1):
        compare(sampled, max_cells=10, random_state=seed)
        found.append(sampled.obsm[KEY])
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()


@pytest.mark.filterwarnings("ignore:Writing zarr v2:UserWarning")  # anndata 0.12 on its own default
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_survives_a_file_and_works_on_it(sampled, tmp_path, suffix):
    compare(sampled)
    path = tmp_path / f"a.{suffix}"
    getattr(sampled, f"write_{suffix}")(path)
    again = getattr(ad, f"read_{suffix}")(path)
    for _ in range(2):
        np.testing.assert_array_equal(again.obsm[KEY], sampled.obsm[KEY])
        np.testing.assert_array_equal(again.obs[f"{KEY}_lfc"], sampled.obs[f"{KEY}_lfc"])
        assert list(again.uns[KEY]["samples"]) == list(sampled.uns[KEY]["samples"])
        compare(again)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"reference": None}, KeyError, "has the conditions 'ctrl', 'stim'"),
        ({"reference": "other"}, KeyError, "has the conditions 'ctrl', 'stim'"),
        ({"group": "ctrl"}, ValueError, "two different conditions"),
        ({"condition_key": None}, ValueError, "`condition_key` was not given"),
        ({"condition_key": "label"}, ValueError, "a sample has one"),
        ({"condition_key": "nothing"}, KeyError, "nothing"),
        ({"bandwidth": -1}, ValueError, "`bandwidth` is -1"),
        ({"max_cells": 1}, ValueError, "`max_cells` is 1"),
        ({"key_added": "scvi"}, ValueError, "holds no densities"),
        ({"key": "other"}, KeyError, "Fits are stored under 'scvi'"),
    ],
)
def test_refuses_with_a_reason_and_leaves_the_object(sampled, options, error, words):
    before = set(sampled.uns), set(sampled.obs), set(sampled.obsm)
    with pytest.raises(error, match=words):
        compare(sampled, **options)
    assert (set(sampled.uns), set(sampled.obs), set(sampled.obsm)) == before


def test_a_sample_of_one_cell_has_no_density(sampled):
    sampled.obs["sample"] = [*sampled.obs["sample"][:-1], "alone"]
    with pytest.raises(ValueError, match="'alone'"):
        compare(sampled)


def test_does_not_drop_columns_of_somebody_else(fitted):
    adata = fitted.copy()
    adata.obs["scvi_abundance_lfc"] = 1.0
    with pytest.raises(ValueError, match="scvi_abundance_lfc"):
        sv.tl.differential_abundance(adata, "batch")
    assert (adata.obs["scvi_abundance_lfc"] == 1).all()
