import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

import scanpy_scvi as sv

COLUMNS = ["scvi_bound_percentile", "scvi_novelty", "scvi_latent_uncertainty", "scvi_trust"]


@pytest.fixture(scope="module")
def judged(fitted):
    adata = fitted.copy()
    sv.tl.trust(adata, n_samples=3)
    return adata


def sums(adata, types, n, rng):
    """Doublets: sums of two cells of different types."""
    pairs = rng.integers(0, adata.n_obs, (20 * n, 2))
    pairs = pairs[types[pairs[:, 0]] != types[pairs[:, 1]]][:n]
    return sparse.csr_matrix(adata.X)[pairs[:, 0]] + sparse.csr_matrix(adata.X)[pairs[:, 1]]


def shuffled(adata, n, rng):
    """Cells whose counts are permuted among the genes."""
    return np.stack([rng.permutation(adata.X[[i]].toarray()[0]) for i in rng.integers(0, adata.n_obs, n)])


def test_columns_follow_their_formulas(judged):
    obs = judged.obs
    assert obs[COLUMNS].notna().all(axis=None)
    np.testing.assert_allclose(obs["scvi_trust"], np.sqrt(obs["scvi_bound_percentile"] * (1 - obs["scvi_novelty"])))
    z, v = judged.obsm["X_scvi"], judged.obsm["scvi_latent_var"]
    distance = NearestNeighbors(n_neighbors=10).fit(z).kneighbors()[0].mean(1)
    np.testing.assert_allclose(obs["scvi_novelty"], (pd.Series(distance).rank() / (len(z) + 1)).to_numpy())
    w = z.var(0)
    np.testing.assert_allclose(obs["scvi_latent_uncertainty"], (v * w / (w + v.mean(0))).sum(1) / w.sum(), rtol=1e-5)


def test_percentiles_are_even_among_trained_and_among_held_out_cells(simulated, quick_fit):
    """Each is ranked among its own kind, so neither is ahead."""
    adata = simulated.copy()
    quick_fit(adata, validation_size=0.5, max_epochs=10)
    sv.tl.trust(adata, n_samples=3)
    held_out = np.zeros(adata.n_obs, bool)
    held_out[adata.uns["scvi"]["validation_cells"]] = True
    assert adata.uns["scvi_trust"]["n_held_out"] == held_out.sum() == 60
    for kind in (held_out, ~held_out):
        p = np.sort(adata.obs["scvi_bound_percentile"][kind])
        np.testing.assert_allclose(p, np.arange(1, kind.sum() + 1) / (kind.sum() + 1))


def test_a_subset_knows_its_held_out_cells_by_name(simulated, quick_fit):
    adata = simulated.copy()
    quick_fit(adata, validation_size=0.5)
    names = set(adata.obs_names[adata.uns["scvi"]["validation_cells"]])
    part = adata[::-2].copy()
    sv.tl.trust(part, n_samples=1)
    assert part.uns["scvi_trust"]["n_held_out"] == len(names & set(part.obs_names))


def test_total_counts_decide_little(cell_lines):
    """The raw bound is nearly a function of the total; the percentile must not be."""
    adata = cell_lines.copy()
    sv.tl.scvi(adata, "batch", max_epochs=10, normalized=False, progress=False)
    sv.tl.trust(adata)
    total = np.asarray(adata.X.sum(1)).ravel()
    assert abs(spearmanr(total, adata.obs["scvi_bound_percentile"]).statistic) < 0.1
    for _, group in adata.obs.groupby("batch", observed=True):
        assert abs(group["scvi_bound_percentile"].mean() - 0.5) < 0.06


def test_artefacts_that_the_fit_has_not_seen_come_last(cell_lines):
    """Held against a fit without them; the intact cells that they compete with are new to it as well."""
    rng = np.random.default_rng(0)
    known = rng.random(cell_lines.n_obs) < 0.7
    reference, rest = cell_lines[known].copy(), cell_lines[~known].copy()
    sv.tl.scvi(reference, max_epochs=30, normalized=False, progress=False)
    types = rest.obs["cell_type"].astype(str).to_numpy()
    for planted, least in ((sums(rest, types, 100, rng), 0.8), (shuffled(rest, 100, rng), 0.95)):
        new = ad.AnnData(sparse.csr_matrix(sparse.vstack([rest.X, planted]), dtype=np.float32))
        new.var_names = rest.var_names
        sv.tl.trust(new, reference=reference)
        intact = np.arange(new.n_obs) < rest.n_obs
        assert roc_auc_score(intact, new.obs["scvi_trust"]) > least
        assert not set(reference.obs.columns) & set(COLUMNS)


@pytest.mark.real_data
@pytest.mark.slow
def test_planted_doublets_and_shuffled_cells_come_last(real_data):
    """Kang PBMC, artefacts in the fit: sums of cells of two lineages, and cells with permuted genes."""
    adata = real_data("kang_pbmc_ifnb")
    adata = adata[:, np.asarray((adata.X > 0).mean(0)).ravel() > 0.02].copy()
    types = adata.obs["cell_type_coarse"].astype(str).to_numpy()
    rng = np.random.default_rng(0)
    for planted in (sums(adata, types, 100, rng), shuffled(adata, 100, rng)):
        both = ad.AnnData(sparse.csr_matrix(sparse.vstack([adata.X, planted]), dtype=np.float32))
        both.var_names = adata.var_names
        sv.tl.scvi(both, normalized=False, progress=False)
        sv.tl.trust(both)
        assert roc_auc_score(np.arange(both.n_obs) < adata.n_obs, both.obs["scvi_trust"]) >= 0.8


def test_same_seed_same_numbers(fitted):
    tables = []
    for seed in (0, 0, 1):
        adata = fitted.copy()
        sv.tl.trust(adata, n_samples=1, random_state=seed)
        tables.append(adata.obs[COLUMNS])
    pd.testing.assert_frame_equal(tables[0], tables[1], check_exact=True)
    assert (tables[0]["scvi_bound_percentile"] != tables[2]["scvi_bound_percentile"]).any()


@pytest.mark.filterwarnings("ignore:Writing zarr v2:UserWarning")  # anndata 0.12 on its own default
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_survives_a_file_and_works_on_it(judged, tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    getattr(judged, f"write_{suffix}")(path)
    again = getattr(ad, f"read_{suffix}")(path)
    pd.testing.assert_frame_equal(again.obs[COLUMNS], judged.obs[COLUMNS], check_exact=True)
    assert again.uns["scvi_trust"]["n_reference"] == judged.n_obs
    sv.tl.trust(again, n_samples=3)
    pd.testing.assert_frame_equal(again.obs[COLUMNS], judged.obs[COLUMNS], check_exact=True)


def test_genes_of_new_cells_are_found_by_name(judged, fitted):
    new = fitted[:, ::-1].copy()
    del new.uns["scvi"]
    sv.tl.trust(new, reference=fitted, n_samples=3, key_added="q")
    assert "scvi_trust" not in new.uns
    assert spearmanr(new.obs["q_bound_percentile"], judged.obs["scvi_bound_percentile"]).statistic > 0.95


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"key": "other"}, KeyError, "Fits are stored under 'scvi'"),
        ({"n_samples": 0}, ValueError, "`n_samples` is 0"),
        ({"n_neighbors": 0.5}, ValueError, "`n_neighbors` is 0.5"),
        ({"key_added": "a/b"}, ValueError, "without '/'"),
        ({"key_added": "taken"}, ValueError, "was not written by `trust`"),
    ],
)
def test_refuses_with_a_reason_and_leaves_the_object(fitted, options, error, words):
    adata = fitted.copy()
    adata.uns["taken_trust"] = 3
    before = set(adata.obs), set(adata.uns)
    with pytest.raises(error, match=words):
        sv.tl.trust(adata, **options)
    assert (set(adata.obs), set(adata.uns)) == before


def test_does_not_overwrite_columns_of_somebody_else(fitted):
    adata = fitted.copy()
    adata.obs["scvi_novelty"] = 1.0
    with pytest.raises(ValueError, match="scvi_novelty"):
        sv.tl.trust(adata, n_samples=1)
    assert (adata.obs["scvi_novelty"] == 1).all()
