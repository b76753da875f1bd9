import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from shifted_latents import matched, shifted_latents

import scanpy_scvi as sv
from scanpy_scvi.store.map_network import rep_id

KNOWN = shifted_latents(n_perturbations=40, n_latent=8, n_cells=40, n_control=100)


def perturbed():
    """Cells with a representation, their guides and the control; one guide has a name that no key could have."""
    adata = ad.AnnData(obsm={"X_rep": KNOWN.seen.astype(np.float32)}, shape=(len(KNOWN.seen), 0))
    names = np.array([f"guide/{i}" for i in range(40)] + ["non-targeting"])
    adata.obs["guide"] = pd.Categorical(names[KNOWN.groups])
    return adata


def rotate(adata, **options):
    return sv.tl.rotate(adata, "guide", **{"use_rep": "X_rep", "control": "non-targeting", "n_starts": 3} | options)


@pytest.fixture(scope="module")
def rotated():
    """Do not change it."""
    adata = perturbed()
    rotate(adata)
    return adata


def test_dimensions_shifts_and_targets_come_back(rotated):
    entry = rotated.uns["rep_rotated"]
    score, columns, signs = matched(KNOWN.z, rotated.obsm["X_rep_rotated"])
    assert score > 0.97
    rows = [list(entry["perturbations"]).index(f"guide/{i}") for i in range(40)]
    shifts = entry["shifts"][rows][:, columns] * signs
    np.testing.assert_allclose(shifts, KNOWN.shifts, atol=1.2)
    np.testing.assert_array_equal(entry["targets"][rows][:, columns], KNOWN.shifts != 0)


def test_what_is_written(rotated):
    entry, z, after = rotated.uns["rep_rotated"], rotated.obsm["X_rep"], rotated.obsm["X_rep_rotated"]
    assert after.dtype == np.float32
    np.testing.assert_array_equal(z, perturbed().obsm["X_rep"])
    np.testing.assert_allclose((z - entry["center"]) @ entry["matrix"], after, atol=1e-5)
    np.testing.assert_allclose(after @ entry["inverse"] + entry["center"], z, atol=1e-3)
    guide = rotated.obs["guide"]
    assert sorted(entry["perturbations"]) == sorted(set(guide) - {"non-targeting"})
    np.testing.assert_allclose(after[guide == "non-targeting"].mean(0), 0, atol=1e-5)
    for name, n, shift, error in zip(
        entry["perturbations"], entry["n_cells"], entry["shifts"], entry["standard_errors"], strict=True
    ):
        assert n == (guide == name).sum()
        np.testing.assert_allclose(after[guide == name].mean(0), shift, atol=1e-4)
        assert error == pytest.approx(np.sqrt(1 / n + 1 / 100))
    beyond = np.abs(entry["shifts"]) > np.maximum(0.5, 3 * entry["standard_errors"])[:, None]
    np.testing.assert_array_equal(entry["targets"], beyond)
    assert (entry["origin"], entry["n_collapsed"]) == ("control", 0)
    expected = {"perturbation_key": "guide", "use_rep": "X_rep", "control": "non-targeting", "method": "sparse"}
    assert entry["params"] == expected | {"threshold": 0.5, "min_share": 0.3, "n_starts": 3, "random_state": 0}


def test_threshold_is_that_of_the_targets():
    adata = perturbed()
    rotate(adata, threshold=20.0)
    assert not adata.uns["rep_rotated"]["targets"].any()
    rotate(adata, threshold=0.0)
    entry = adata.uns["rep_rotated"]
    np.testing.assert_array_equal(entry["targets"], np.abs(entry["shifts"]) > 3 * entry["standard_errors"][:, None])


@pytest.mark.parametrize("method", ["sparse", "ica"])
def test_without_a_control_shifts_are_counted_from_the_median_and_it_is_said(caplog, method):
    adata = perturbed()
    with caplog.at_level(logging.INFO, logger="scanpy_scvi"):
        rotate(adata, control=None, method=method)
    assert "41 perturbations, counted from the median perturbation" in caplog.text
    entry = adata.uns["rep_rotated"]
    assert entry["origin"] == "median"
    assert "control" not in entry["params"]
    row = list(entry["perturbations"]).index("non-targeting")
    np.testing.assert_allclose(entry["standard_errors"], 1 / np.sqrt(entry["n_cells"]))
    if method == "sparse":
        assert (np.abs(entry["shifts"][row]) < 4 * entry["standard_errors"][row]).all()


def test_ica_turns_the_same_cells():
    adata = perturbed()
    rotate(adata, method="ica", key_added="independent")
    assert adata.uns["independent"]["params"]["method"] == "ica"
    assert matched(KNOWN.z, adata.obsm["X_independent"])[0] > 0.8


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data will no longer be the default")  # anndata's own default
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_everything_survives_a_file(rotated, tmp_path, suffix):
    path = tmp_path / f"rotated.{suffix}"
    getattr(rotated, f"write_{suffix}")(path)
    back = getattr(ad, f"read_{suffix}")(path)
    for name, value in rotated.uns["rep_rotated"].items():
        if name != "params":
            np.testing.assert_array_equal(back.uns["rep_rotated"][name], value)
    assert back.uns["rep_rotated"]["params"] == rotated.uns["rep_rotated"]["params"]
    rotate(back)  # its own result may be written anew
    np.testing.assert_array_equal(back.obsm["X_rep_rotated"], rotated.obsm["X_rep_rotated"])


def test_copy_view_and_cells_without_a_perturbation():
    adata = perturbed()
    kept = rotate(adata, copy=True)
    assert kept is not None
    assert list(adata.obsm) == ["X_rep"]
    assert not adata.uns
    half = adata[adata.obs["guide"] != "guide/3"]
    assert rotate(half) is None
    assert not half.is_view
    assert "guide/3" not in list(half.uns["rep_rotated"]["perturbations"])
    adata.obs.loc[adata.obs["guide"] == "guide/3", "guide"] = np.nan
    rotate(adata)
    np.testing.assert_allclose(adata.uns["rep_rotated"]["matrix"], half.uns["rep_rotated"]["matrix"], rtol=1e-6)
    assert np.isfinite(adata.obsm["X_rep_rotated"]).all()


def test_a_rotation_of_the_rotation_is_the_same(rotated):
    adata = rotated.copy()
    rotate(adata, use_rep="X_rep_rotated")
    np.testing.assert_allclose(adata.obsm["X_rep_rotated_rotated"], adata.obsm["X_rep_rotated"], atol=1e-3)


def test_a_fit_is_rotated_and_its_space_remembered(fitted):
    adata = fitted.copy()
    adata.obs["condition"] = [f"condition_{i % 6}" for i in range(adata.n_obs)]
    sv.tl.rotate(adata, "condition", n_starts=2)
    assert adata.uns["scvi_rotated"]["reference_id"] == rep_id(adata, "X_scvi")
    assert adata.obsm["X_scvi_rotated"].shape == adata.obsm["X_scvi"].shape
    np.testing.assert_array_equal(adata.obsm["X_scvi"], fitted.obsm["X_scvi"])


def test_what_is_not_well_determined_is_said(caplog):
    adata = perturbed()
    few = adata[adata.obs["guide"].isin(["guide/0", "guide/1", "non-targeting"])].copy()
    few.obsm["X_rep"] = np.c_[few.obsm["X_rep"], np.ones(few.n_obs, np.float32)]
    with caplog.at_level(logging.WARNING, logger="scanpy_scvi"):
        rotate(few)
    assert "The perturbations span 2 of 9 dimensions" in caplog.text
    assert "1 directions have no spread" in caplog.text


def test_what_cannot_be_rotated_is_refused_and_nothing_is_changed():
    adata = perturbed()
    adata.uns["mine"] = {"a": 1}
    adata.obsm["X_bad"] = adata.obsm["X_rep"].copy()
    adata.obsm["X_bad"][3, 1] = np.nan
    one = adata[adata.obs["guide"].isin(["guide/0", "non-targeting"])].copy()
    with pytest.raises(ValueError, match="Only 1 perturbations"):
        rotate(one)
    with pytest.raises(KeyError, match=r"has no 'wild-type', but `control` expects one of 'guide/0'"):
        rotate(adata, control="wild-type")
    with pytest.raises(KeyError, match="use_rep"):
        rotate(adata, use_rep="X_scvi")
    with pytest.raises(KeyError, match="perturbation_key"):
        sv.tl.rotate(adata, "guides", use_rep="X_rep")
    with pytest.raises(ValueError, match="NaN or infinite values in 1 cells"):
        rotate(adata, use_rep="X_bad")
    with pytest.raises(ValueError, match="holds no rotation"):
        rotate(adata, key_added="mine")
    with pytest.raises(ValueError, match="holds no rotation"):
        rotate(adata, key_added="rep")
    with pytest.raises(ValueError, match="without '/'"):
        rotate(adata, key_added="a/b")
    for options, said in (
        ({"method": "varimax"}, "`method` is 'varimax', but one of 'sparse', 'ica'"),
        ({"threshold": -1}, "`threshold` is -1"),
        ({"n_starts": 0}, "`n_starts` is 0"),
        ({"random_state": -1}, "`random_state` is -1"),
        ({"copy": "yes"}, "`copy` is 'yes'"),
    ):
        with pytest.raises(ValueError, match=said):
            rotate(adata, **options)
    assert list(adata.obsm) == ["X_rep", "X_bad"]
    assert list(adata.uns) == ["mine"]


def test_a_rotation_never_overwrites_what_it_reads(rotated):
    with pytest.raises(ValueError, match="overwritten by its own rotation"):
        rotate(rotated, use_rep="X_rep_rotated", key_added="rep_rotated")


def test_same_seed_same_bits(rotated):
    adata = perturbed()
    rotate(adata)
    np.testing.assert_array_equal(adata.obsm["X_rep_rotated"], rotated.obsm["X_rep_rotated"])
