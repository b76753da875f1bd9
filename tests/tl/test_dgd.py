import anndata as ad
import numpy as np
import pytest
from fingerprint import fingerprint

import scanpy_scvi as sv
from scanpy_scvi.metrics import label_score
from scanpy_scvi.store.load import load

OPTIONS = {"max_epochs": 8, "n_hidden": 16, "n_latent": 3, "progress": False, "batch_key": "batch", "n_components": 4}


@pytest.fixture(scope="module")
def free(simulated):
    adata = simulated.copy()
    sv.tl.dgd(adata, **OPTIONS)
    return adata


def test_slots(simulated, free):
    new = {slot: set(getattr(free, slot)) - set(getattr(simulated, slot)) for slot in ("obs", "obsm", "layers", "uns")}
    assert new == {
        "obs": {"dgd_component"},
        "obsm": {"X_dgd", "dgd_responsibilities"},  # there is no variance
        "layers": {"dgd_normalized"},
        "uns": {"dgd"},
    }
    assert free.obsm["X_dgd"].shape == (120, 3)
    assert free.obsm["X_dgd"].dtype == np.float32
    np.testing.assert_allclose(free.obsm["dgd_responsibilities"].sum(1), 1, rtol=1e-5)


def test_latent_states_are_stored_once(free):
    assert not any(name.startswith("encoder") for name in free.uns["dgd"]["state"])
    np.testing.assert_array_equal(load(free, "dgd").model.encoder.z.detach(), free.obsm["X_dgd"])


def test_everything_after_the_fit_works_on_a_reloaded_file(free, tmp_path):
    path = tmp_path / "free.h5ad"
    free.copy().write_h5ad(path)
    again = ad.read_h5ad(path)
    layer = sv.tl.normalized_expression(again, key="dgd", inplace=False)
    np.testing.assert_array_equal(layer, free.layers["dgd_normalized"])
    sv.tl.rank_genes_groups(again, "label", key="dgd", n_samples=100)
    sv.tl.log_likelihood(again, key="dgd")
    sv.tl.trust(again, key="dgd")
    sv.tl.interpolate(again, source="label_0", target="label_1", groupby="label", key="dgd", n_steps=5)
    sv.tl.differential_abundance(again, "batch", key="dgd")
    sv.tl.posterior_predictive_check(again, key="dgd", n_samples=10)
    assert np.isfinite(again.uns["dgd_interpolation"]["log_density"]).all()
    assert np.isfinite(again.obsm["dgd_abundance"]).all()
    assert (again.obs["dgd_latent_uncertainty"] == 0).all()
    assert sv.tl.sample(again, 20, key="dgd").n_obs == 20
    assert sv.tl.verify(again, key="dgd")["level"] == "ok"


def test_a_subset_keeps_its_states(free):
    rows = np.array([7, 100, 3, 55])
    few = free[rows].copy()
    np.testing.assert_array_equal(load(few, "dgd").model.encoder.z.detach(), free.obsm["X_dgd"][rows])
    layer = sv.tl.normalized_expression(few, key="dgd", inplace=False)
    np.testing.assert_allclose(layer, free.layers["dgd_normalized"][rows], rtol=1e-4)


def test_cells_without_states_get_them(free, simulated):
    """An AnnData that has the fit in `uns` and nothing in `obsm`: the states of the fit are found again, or better."""
    new = simulated.copy()
    new.uns["dgd"] = free.uns["dgd"]
    before = fingerprint(new)
    sv.tl.log_likelihood(new, key="dgd")
    sv.tl.log_likelihood(free, key="dgd")
    worse = free.obs["dgd_log_likelihood"] - new.obs["dgd_log_likelihood"]
    assert worse.quantile(0.9) < 0.5  # of some cells another mode is found
    assert abs(worse.median()) < 0.05
    del new.obs["dgd_log_likelihood"]
    assert fingerprint(new) == before


def test_new_cells_are_judged_against_those_of_the_fit(free, simulated):
    new = simulated[:40].copy()
    new.obs_names = [f"new_{i}" for i in range(40)]
    sv.tl.trust(new, reference=free, key="dgd")
    assert new.obs["dgd_trust"].between(0, 1).all()
    assert load(free, "dgd").on(new).model.encoder.z.shape == (40, 3)


def test_cells_are_not_taken_for_others(free):
    fitted = load(free, "dgd")
    with pytest.raises(ValueError, match=r"loaded for 120 cells.*fitted\.on"):
        fitted.read(free[:50])


def test_states_that_cannot_be_read_are_refused(free):
    broken = free.copy()
    broken.obsm["X_dgd"] = broken.obsm["X_dgd"][:, :2]
    with pytest.raises(ValueError, match="Delete it"):
        sv.tl.log_likelihood(broken, key="dgd")


def test_importance_weights_are_refused(free):
    with pytest.raises(ValueError, match="without a variance"):
        sv.tl.rank_genes_groups(free.copy(), "label", key="dgd", weights="importance")


def test_a_bandwidth_of_zero_is_refused(free):
    with pytest.raises(ValueError, match="no variance"):
        sv.tl.differential_abundance(free.copy(), "batch", key="dgd", bandwidth=0)


def test_the_same_seed_gives_the_same_bits(simulated, free):
    again = simulated.copy()
    sv.tl.dgd(again, **OPTIONS)
    assert fingerprint(again.obsm["X_dgd"]) == fingerprint(free.obsm["X_dgd"])
    assert fingerprint(again.uns["dgd"]["state"]) == fingerprint(free.uns["dgd"]["state"])


@pytest.mark.parametrize("options", [{"n_components": 0}, {"component_sd": 0}, {"decoder_l2": 0}, {"n_latent": 0}])
def test_refuses(options, adata):
    before = fingerprint(adata)
    with pytest.raises(ValueError, match=next(iter(options))):
        sv.tl.dgd(adata, **OPTIONS | options)
    assert fingerprint(adata) == before


@pytest.mark.parametrize(
    "options", [{"dispersion": "gene-cell"}, {"likelihood": "poisson"}, {"size_factor_key": "size"}]
)
def test_other_counts(options, adata):
    adata.obs["size"] = np.linspace(1, 2, adata.n_obs)
    sv.tl.dgd(adata, **OPTIONS | options)
    assert np.isfinite(adata.obsm["X_dgd"]).all()


def test_without_held_out_cells(adata):
    sv.tl.dgd(adata, **OPTIONS, validation_size=0, early_stopping=False)
    assert np.isfinite(adata.obsm["X_dgd"]).all()


def test_states_separate_cell_lines(cell_lines):
    adata = cell_lines.copy()
    sv.tl.dgd(adata, "batch", max_epochs=40, normalized=False, progress=False)
    assert label_score(adata.obsm["X_dgd"], adata.obs["cell_type"].to_numpy()) > 0.95
