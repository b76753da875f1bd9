import anndata as ad
import numpy as np
import pytest
from fingerprint import fingerprint
from questions import ask_everything
from scipy import stats

import scanpy_scvi as sv
from scanpy_scvi.metrics import label_score
from scanpy_scvi.store.load import load

OPTIONS = {"max_epochs": 4, "n_hidden": 16, "n_latent": 3, "progress": False}


def totals(adata):
    return np.asarray(adata.X.sum(1)).ravel()


@pytest.fixture(scope="module")
def denoised(simulated):
    adata = simulated.copy()
    sv.tl.dca(adata, "batch", **OPTIONS)
    return adata


def test_slots(simulated, denoised):
    new = {slot: set(getattr(denoised, slot)) - set(getattr(simulated, slot)) for slot in ("obs", "obsm", "layers")}
    assert new == {"obs": set(), "obsm": {"X_dca"}, "layers": {"dca_normalized"}}  # there is no variance
    assert denoised.obsm["X_dca"].dtype == np.float32
    assert fingerprint(denoised.X) == fingerprint(simulated.X)
    spec = load(denoised, "dca").spec
    assert (spec.prior.name, spec.likelihood.options["dispersion"]) == ("flat", "gene-cell")
    assert spec.encoder.options["input_total"] == pytest.approx(np.median(totals(simulated)), rel=1e-3)


def test_the_layer_is_on_the_scale_of_the_counts(denoised):
    """Each cell's sum is its own library; per 10,000 it is what other models write."""
    layer = denoised.layers["dca_normalized"]
    np.testing.assert_allclose(layer.sum(1), totals(denoised), rtol=1e-4)
    assert denoised.uns["dca"]["denoised_scale"] == "counts at the cell's own library size"
    per_10k = sv.tl.normalized_expression(denoised, key="dca", inplace=False).to_numpy()
    np.testing.assert_allclose(layer, per_10k * totals(denoised)[:, None] / 1e4, rtol=1e-4)


def test_later_questions_after_a_file(denoised, tmp_path):
    path = tmp_path / "dca.h5ad"
    denoised.write_h5ad(path)
    again = ad.read_h5ad(path)
    ask_everything(again, "dca")
    assert sv.tl.verify(again, key="dca")["level"] == "ok"
    again.layers["dca_normalized"] = again.layers["dca_normalized"] * 2
    assert sv.tl.verify(again, key="dca")["level"] == "warning"


def test_a_query_is_denoised_on_the_same_scale(simulated, denoised):
    query = simulated[:40].copy()
    query.obs_names = [f"new_{i}" for i in range(40)]
    query.obs["batch"] = "new"
    sv.tl.map_query(query, denoised, key="dca", normalized=True, max_epochs=1, progress=False)
    np.testing.assert_allclose(query.layers["dca_normalized"].sum(1), totals(query), rtol=1e-4)
    assert query.uns["dca"]["denoised_scale"] == "counts at the cell's own library size"
    assert sv.tl.verify(query, key="dca")["level"] == "ok"


def test_the_same_seed_gives_the_same_bits(simulated):
    found = []
    for _ in range(2):
        adata = simulated.copy()
        sv.tl.dca(adata, corruption=0.3, **OPTIONS)
        found.append(fingerprint(adata.uns["dca"]["state"]))
    assert found[0] == found[1]


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson", "gaussian", "mse"])
def test_likelihoods(likelihood, adata):
    sv.tl.dca(adata, likelihood=likelihood, **OPTIONS)
    np.testing.assert_allclose(adata.layers["dca_normalized"].sum(1), totals(adata), rtol=1e-4)
    assert np.isfinite(adata.obsm["X_dca"]).all()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"likelihood": "normal"}, "likelihood"),
        ({"likelihood": "mse", "dispersion": "gene-batch"}, "squared error has no dispersion"),
        ({"corruption": 1.0}, "corruption"),
        ({"l2": -1.0}, "l2"),
        ({"target_sum": 0.0}, "target_sum"),
        ({"n_layers": 0}, "n_layers"),
    ],
)
def test_refuses(options, named, adata):
    before = fingerprint(adata)
    with pytest.raises(ValueError, match=named):
        sv.tl.dca(adata, "batch", **OPTIONS | options)
    assert fingerprint(adata) == before


def test_denoising_comes_closer_to_the_truth():
    """Simulated rates are known: what comes out is closer to them than the counts are, for nearly every gene."""
    adata = sv.datasets.simulate(n_cells=1000, n_genes=100, density=0.3)
    sv.tl.dca(adata, max_epochs=40, progress=False)
    truth = np.asarray(adata.layers["true_rate"])
    truth = truth / truth.sum(1, keepdims=True) * totals(adata)[:, None]
    agreement = [
        np.array([stats.spearmanr(x[:, g], truth[:, g]).statistic for g in range(100)])
        for x in (adata.X.toarray(), adata.layers["dca_normalized"])
    ]
    assert (agreement[1] > agreement[0]).mean() > 0.95
    assert np.median(agreement[1]) > np.median(agreement[0]) + 0.15


def test_points_separate_cell_lines(cell_lines):
    adata = cell_lines.copy()
    sv.tl.dca(adata, "batch", max_epochs=20, normalized=False, progress=False)
    assert label_score(adata.obsm["X_dca"], adata.obs["cell_type"].to_numpy()) > 0.95
