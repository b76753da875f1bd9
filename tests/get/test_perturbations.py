import anndata as ad
import numpy as np
import pytest
from svae_tables import svae_adata

import scanpy_scvi as sv


@pytest.fixture
def fitted():
    return svae_adata(12)


def test_rows_are_perturbations_and_columns_latents(fitted):
    space, entry = sv.get.perturbations(fitted), fitted.uns["svae"]
    assert space.obs_names.to_list() == entry["effects"].index.to_list()
    assert space.var_names.to_list() == list(entry["effects"])
    np.testing.assert_array_equal(space.X, entry["effects"])
    assert space.X.dtype == np.float32
    np.testing.assert_array_equal(space.obs["n_cells"], entry["perturbations"]["n_cells"])
    np.testing.assert_array_equal(space.var["n_perturbations"], (space.X != 0).sum(0))
    assert space.uns["control"].tolist() == ["control"]
    assert space.uns["perturbation_key"] == "perturbation"


def test_layers_are_the_columns_of_the_long_table_in_any_order_of_its_rows(fitted):
    targets = fitted.uns["svae"]["targets"]
    fitted.uns["svae"]["targets"] = targets.sample(frac=1, random_state=0)
    space = sv.get.perturbations(fitted)
    for name in ("shift", "standard_error", "probability", "q_value", "evidence"):
        for i, j in ((0, 0), (3, 5), (11, 2)):
            one = (targets["perturbation"] == space.obs_names[i]) & (targets["latent"] == space.var_names[j])
            assert space.layers[name][i, j] == targets.loc[one, name].item()
    is_open = space.X != 0
    assert 0 < is_open.mean() < 1
    np.testing.assert_array_equal(space.X[is_open], space.layers["shift"][is_open])
    assert (space.layers["shift"][~is_open] != 0).all()


def test_without_control_its_name_is_empty():
    assert sv.get.perturbations(svae_adata(8, control=False)).uns["control"].size == 0


def test_numbers_that_are_missing_stay_so(fitted):
    fitted.uns["svae"]["targets"]["q_value"] = np.nan
    space = sv.get.perturbations(fitted)
    assert space.layers["q_value"].shape == space.shape
    assert np.isnan(space.layers["q_value"]).all()


@pytest.mark.filterwarnings("ignore:Writing zarr v2:UserWarning")  # anndata 0.12 on its own default
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_the_same_after_a_round_trip_of_cells_and_of_itself(suffix, fitted, tmp_path):
    space = sv.get.perturbations(fitted)
    for name, written in (("cells", fitted), ("space", space)):
        getattr(written, f"write_{suffix}")(tmp_path / f"{name}.{suffix}")
    cells, back = (getattr(ad, f"read_{suffix}")(tmp_path / f"{name}.{suffix}") for name in ("cells", "space"))
    for other in (sv.get.perturbations(cells), back):
        np.testing.assert_array_equal(other.X, space.X)
        np.testing.assert_array_equal(other.layers["probability"], space.layers["probability"])
        assert other.uns["control"].tolist() == ["control"]
        assert other.obs_names.equals(space.obs_names)


def test_what_is_not_there_is_named(fitted):
    fitted.uns["scvi"] = {name: fitted.uns["svae"][name] for name in ("schema", "history", "convergence", "params")}
    with pytest.raises(KeyError, match=r"uns\['scvi'\] is a fit without perturbations. Pass key='svae'"):
        sv.get.perturbations(fitted, "scvi")
    with pytest.raises(KeyError, match=r"has no 'other'\. Pass key="):
        sv.get.perturbations(fitted, "other")
    del fitted.uns["svae"]
    with pytest.raises(KeyError, match=r"Run sv.tl.svae"):
        sv.get.perturbations(fitted, "scvi")


def test_damaged_tables_are_refused(fitted):
    del fitted.uns["svae"]["targets"]["probability"]
    with pytest.raises(ValueError, match="lacks the column 'probability'"):
        sv.get.perturbations(fitted)
    damaged = svae_adata(12)
    damaged.uns["svae"]["effects"] = damaged.uns["svae"]["effects"].iloc[1:]
    with pytest.raises(ValueError, match="does not have the rows of 'perturbations'"):
        sv.get.perturbations(damaged)
