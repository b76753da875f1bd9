import anndata as ad
import numpy as np
import pytest
from fingerprint import fingerprint
from scipy import stats
from scipy.special import softmax
from sklearn.metrics import adjusted_rand_score

import scanpy_scvi as sv

QUICK = {"max_epochs": 3, "n_hidden": 16, "n_latent": 3, "progress": False}
OPTIONS = QUICK | {"batch_key": "batch", "n_components": 4}


@pytest.fixture(scope="module")
def mixed(simulated):
    adata = simulated.copy()
    sv.tl.scvae(adata, **OPTIONS)
    return adata


def test_responsibilities_are_those_of_the_stored_components(mixed):
    components, found = mixed.uns["scvae"]["components"], mixed.obsm["scvae_responsibilities"]
    z = mixed.obsm["X_scvae"].astype(float)
    parts = zip(components["weights"], components["means"], components["sds"], strict=True)
    joint = np.stack([np.log(w) + stats.norm(m, s).logpdf(z).sum(1) for w, m, s in parts], 1)
    np.testing.assert_allclose(found, softmax(joint, axis=1), atol=1e-4)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(mixed.obs["scvae_component"].astype(int), found.argmax(1))
    assert (np.diff(components["weights"]) <= 0).all()
    assert list(components["names"]) == ["0", "1", "2", "3"]
    assert set(mixed.obs["scvae_component"].cat.categories) == set(mixed.obs["scvae_component"].unique())


def test_everything_after_the_fit_works_on_a_reloaded_file(mixed, tmp_path):
    path = tmp_path / "mixed.h5ad"
    mixed.copy().write_h5ad(path)
    again = ad.read_h5ad(path)
    np.testing.assert_array_equal(again.uns["scvae"]["components"]["means"], mixed.uns["scvae"]["components"]["means"])
    layer = sv.tl.normalized_expression(again, key="scvae", inplace=False)
    np.testing.assert_array_equal(layer, mixed.layers["scvae_normalized"])
    sv.tl.rank_genes_groups(again, "scvae_component", key="scvae", n_samples=100)
    sv.tl.log_likelihood(again, key="scvae", n_samples=5)
    sv.tl.trust(again, key="scvae")
    assert (again.obs["scvae_log_likelihood"] < 0).all()
    assert again.obs["scvae_trust"].between(0, 1).all()
    assert sv.tl.sample(again, 20, key="scvae").n_obs == 20
    assert sv.tl.verify(again, key="scvae")["level"] == "ok"


def test_a_single_component_holds_all_cells(adata):
    sv.tl.scvae(adata, **OPTIONS | {"n_components": 1})
    assert (adata.obsm["scvae_responsibilities"] == 1).all()
    assert (adata.obs["scvae_component"] == "0").all()


def test_the_same_seed_gives_the_same_bits(simulated, mixed):
    again = simulated.copy()
    sv.tl.scvae(again, **OPTIONS)
    assert fingerprint(again.uns) == fingerprint(mixed.uns)
    assert fingerprint(again.obsm) == fingerprint(mixed.obsm)


def test_the_best_of_several_is_kept_and_all_are_reported(adata):
    sv.tl.scvae(adata, **OPTIONS | {"n_components": [3, 1, 2]})
    tried = adata.uns["scvae"]["candidates"]
    assert list(tried["n_components"]) == [1, 2, 3][: len(tried["bound"])]
    best = tried["n_components"][np.argmax(tried["bound"])]
    assert adata.obsm["scvae_responsibilities"].shape[1] == best
    assert adata.uns["scvae"]["convergence"]["best_elbo"] == tried["bound"].max()


@pytest.mark.parametrize("deleted", [False, True])
def test_another_model_under_the_same_key_takes_the_components_away(mixed, deleted):
    adata = mixed.copy()
    if deleted:  # by the user, who left the probabilities
        del adata.obs["scvae_component"]
    sv.tl.scvi(adata, "batch", **QUICK, key_added="scvae")
    assert "scvae_component" not in adata.obs
    assert "scvae_responsibilities" not in adata.obsm
    assert "components" not in adata.uns["scvae"]


def test_somebody_elses_column_is_not_overwritten(adata):
    adata.obs["scvae_component"] = "mine"
    with pytest.raises(ValueError, match="was not written by scanpy_scvi"):
        sv.tl.scvae(adata, **OPTIONS)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_components": 0}, "n_components"),
        ({"n_components": "many"}, "'auto' was expected"),
        ({"n_components": []}, "empty list"),
        ({"n_components": [2, 3], "validation_size": 0, "early_stopping": False}, "held-out cells decides"),
        ({"concentration": 0}, "concentration"),
    ],
)
def test_refuses(options, words, adata):
    before = fingerprint(adata)
    with pytest.raises(ValueError, match=words):
        sv.tl.scvae(adata, **OPTIONS | options)
    assert fingerprint(adata) == before


def test_components_do_not_collapse_and_know_the_cell_lines(cell_lines):
    """Five lines in five batches: components find them without labels."""
    adata = cell_lines.copy()
    sv.tl.scvae(adata, "batch", n_components=10, max_epochs=25, normalized=False, progress=False)
    share = adata.obs["scvae_component"].value_counts(normalize=True)
    assert (share > 0.02).sum() >= 4
    assert adjusted_rand_score(adata.obs["cell_type"], adata.obs["scvae_component"]) > 0.5
