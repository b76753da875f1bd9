import anndata as ad
import numpy as np
import pytest
import torch

import scanpy_scvi as sv
from scanpy_scvi.posterior import held_out_bound
from scanpy_scvi.store.load import load

COLUMN = "scvi_log_likelihood"


def test_is_the_weighted_bound(fitted):
    adata = fitted.copy()
    sv.tl.log_likelihood(adata, n_samples=5)
    model = load(adata, "scvi")
    wanted = held_out_bound(model.model, model.read(adata), n_samples=5, device=torch.device("cpu"))
    np.testing.assert_allclose(adata.obs[COLUMN], wanted.log_likelihood, rtol=1e-6)
    sv.tl.log_likelihood(adata, n_samples=50, key_added="more")
    assert adata.obs["more"].mean() > adata.obs[COLUMN].mean()


def test_works_on_a_reloaded_file_and_on_other_cells(fitted, tmp_path):
    adata = fitted.copy()
    sv.tl.log_likelihood(adata, n_samples=5)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(again.obs[COLUMN], adata.obs[COLUMN])
    del again.obs[COLUMN]
    sv.tl.log_likelihood(again, n_samples=5)
    np.testing.assert_array_equal(again.obs[COLUMN], adata.obs[COLUMN])
    part = again[::2]
    sv.tl.log_likelihood(part, n_samples=300, random_state=3)
    sv.tl.log_likelihood(again, n_samples=300)
    np.testing.assert_allclose(part.obs[COLUMN], again.obs[COLUMN].iloc[::2], atol=1.0)
    assert part.n_obs == 60


def test_shuffled_genes_are_less_probable(simulated, quick_fit):
    adata = simulated.copy()
    quick_fit(adata, max_epochs=40)
    sv.tl.log_likelihood(adata)
    shuffled = adata.copy()
    shuffled.X = shuffled.X[:, np.random.default_rng(0).permutation(adata.n_vars)]
    sv.tl.log_likelihood(shuffled)
    assert (shuffled.obs[COLUMN] < adata.obs[COLUMN]).mean() > 0.95


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"n_samples": 0}, ValueError, "`n_samples` is 0"),
        ({"random_state": 0.5}, ValueError, "random_state"),
        ({"key": "other"}, KeyError, "Fits are stored under 'scvi'"),
        ({"key_added": "a/b"}, ValueError, "without '/'"),
    ],
)
def test_refuses_with_a_reason_and_leaves_the_object(fitted, options, error, words):
    adata = fitted.copy()
    before = list(adata.obs)
    with pytest.raises(error, match=words):
        sv.tl.log_likelihood(adata, **options)
    assert list(adata.obs) == before


def test_does_not_overwrite_what_the_fit_reads(fitted):
    adata = fitted.copy()
    with pytest.raises(ValueError, match="which the fit reads"):
        sv.tl.log_likelihood(adata, n_samples=2, key_added="batch")
    assert adata.obs["batch"].equals(fitted.obs["batch"])
