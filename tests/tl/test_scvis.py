from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from fingerprint import fingerprint
from questions import ask_everything
from scipy import stats

import scanpy_scvi as sv
from scanpy_scvi.modules.spec import ModelSpec
from scanpy_scvi.store.load import load

OPTIONS = {"max_epochs": 15, "n_hidden": 16, "progress": False}


@pytest.fixture(scope="module")
def mapped(simulated):
    adata = simulated.copy()
    sv.tl.scvis(adata, **OPTIONS)
    return adata


def test_slots(simulated, mapped):
    slots = ("obs", "obsm", "layers", "uns")
    new = {slot: set(getattr(mapped, slot)) - set(getattr(simulated, slot)) for slot in slots}
    assert new == {
        "obs": {"scvis_loglik"},
        "obsm": {"X_scvis", "scvis_latent_var"},
        "layers": {"scvis_normalized"},
        "uns": {"scvis"},
    }
    assert mapped.obsm["X_scvis"].shape == (120, 2)
    assert mapped.obs["scvis_loglik"].dtype == np.float64


def test_the_log_likelihood_is_that_of_log_normalised_counts_at_the_posterior_mean(mapped):
    fitted = load(mapped, "scvis")
    cells = fitted.read(mapped).take(np.arange(mapped.n_obs))
    m = fitted.model.decode(fitted.model.encode(cells).mean, cells).params.detach().double().numpy()
    x = mapped.X.toarray().astype(float)
    y = np.log1p(x / x.sum(1, keepdims=True) * np.median(x.sum(1)))
    part = fitted.model.likelihood
    dof, sd = (t.detach().double().numpy() for t in (part.dof(), part.sd()))
    np.testing.assert_allclose(mapped.obs["scvis_loglik"], stats.t.logpdf(y, dof, m, sd).sum(1), rtol=1e-4)


def test_everything_after_the_fit_works_on_a_reloaded_file(mapped, tmp_path):
    mapped.copy().write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(back.obs["scvis_loglik"], mapped.obs["scvis_loglik"])
    ask_everything(back, "scvis")
    assert sv.tl.verify(back, key="scvis")["level"] == "ok"


def test_it_is_made_of_the_parts_that_it_says(mapped, simulated):
    spec = ModelSpec.from_json(mapped.uns["scvis"]["spec"])
    assert (spec.encoder.name, spec.likelihood.name, spec.prior.name) == ("mlp", "student_t", "normal")
    assert [(part.name, part.options["perplexity"]) for part in spec.penalties] == [("tsne", 10.0)]
    adata = simulated.copy()
    sv.tl.scvis(adata, batch_key="batch", penalties=("mmd",), tsne_weight=0, **OPTIONS | {"max_epochs": 2})
    assert [part.name for part in ModelSpec.from_json(adata.uns["scvis"]["spec"]).penalties] == ["mmd"]


def test_the_same_seed_gives_the_same_bits(simulated, mapped):
    adata = simulated.copy()
    sv.tl.scvis(adata, **OPTIONS)
    np.testing.assert_array_equal(adata.obsm["X_scvis"], mapped.obsm["X_scvis"])
    np.testing.assert_array_equal(adata.obs["scvis_loglik"], mapped.obs["scvis_loglik"])


def test_another_model_under_the_key_takes_its_column_away(mapped):
    adata = mapped.copy()
    sv.tl.scvi(adata, n_latent=2, n_hidden=16, max_epochs=2, progress=False, key_added="scvis")
    assert "scvis_loglik" not in adata.obs


def test_mapped_cells_have_no_column_of_the_reference(mapped, simulated):
    query = simulated[:40].copy()
    sv.tl.map_query(query, mapped, key="scvis", progress=False)
    np.testing.assert_allclose(query.obsm["X_scvis"], mapped.obsm["X_scvis"][:40], rtol=1e-4, atol=1e-4)
    assert "scvis_loglik" not in query.obs
    assert "obs_columns" not in query.uns["scvis"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tsne_weight": -1.0}, "tsne_weight"),
        ({"perplexity": 1.0}, "perplexity"),
        ({"perplexity": 60.0}, "should have 180 cells or more"),
        ({"target_sum": -1.0}, "target_sum"),
        ({"penalties": ("tsne",)}, "'tsne' comes twice"),
    ],
)
def test_refuses(options, words, adata):
    before = fingerprint(adata)
    with pytest.raises(ValueError, match=words):
        sv.tl.scvis(adata, **OPTIONS | options)
    assert fingerprint(adata) == before


def test_cells_that_do_not_belong_have_a_low_log_likelihood(cell_lines):
    """Half of one cell's counts exchanged between genes."""
    adata = cell_lines.copy()
    x = adata.X.toarray()
    rng = np.random.default_rng(0)
    strange = rng.permutation(adata.n_obs)[:20]
    for i in strange:
        some = rng.permutation(adata.n_vars)[: adata.n_vars // 2]
        x[i, some] = x[i, rng.permutation(some)]
    adata.X = x
    sv.tl.scvis(adata, max_epochs=30, normalized=False, progress=False)
    rank = adata.obs["scvis_loglik"].rank(pct=True).to_numpy()
    assert np.median(rank[strange]) < 0.1
