import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scanpy_scvi as sv


@pytest.fixture(scope="module")
def fitted():
    adata = sv.datasets.simulate(n_cells=120, n_genes=40, density=0.4)
    sv.tl.scvi(adata, batch_key="batch", max_epochs=4, n_latent=3, progress=False)
    return adata


def test_one_row_an_epoch_with_the_bounds(fitted):
    table = sv.get.history(fitted)
    assert table.index.name == "epoch"
    assert table.index.tolist() == list(range(1, len(table) + 1))
    assert list(table) == ["train_elbo", "validation_elbo", "kl", "kl_weight", "learning_rate"]
    assert (table[["train_elbo", "validation_elbo"]] < 0).all(axis=None)
    assert table["validation_elbo"].max() <= sv.get.convergence(fitted)["best_elbo"]  # dispersions settle at the end
    assert table["train_elbo"].iloc[-1] > table["train_elbo"].iloc[0]


def test_convergence_agrees_with_the_history(fitted):
    end = sv.get.convergence(fitted)
    assert end["verdict"] in ("converged", "still improving", "KL collapsed", "diverged")
    assert end["best_elbo"] >= sv.get.history(fitted).loc[end["best_epoch"], "validation_elbo"]
    end["verdict"] = "changed"
    assert fitted.uns["scvi"]["convergence"]["verdict"] != "changed"


@pytest.mark.filterwarnings("ignore:Writing zarr v2:UserWarning")  # anndata 0.12 on its own default
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_the_same_after_a_round_trip(suffix, fitted, tmp_path):
    path = tmp_path / f"fit.{suffix}"
    getattr(fitted, f"write_{suffix}")(path)
    back = getattr(ad, f"read_{suffix}")(path)
    pd.testing.assert_frame_equal(sv.get.history(back), sv.get.history(fitted))
    assert sv.get.convergence(back) == sv.get.convergence(fitted)


def test_without_a_fit_the_next_step_is_named():
    adata = sv.datasets.simulate(n_cells=20, n_genes=10, density=0.5)
    with pytest.raises(KeyError, match=r"adata.uns has no 'scvi'. Run sv.tl.scvi"):
        sv.get.history(adata)
    adata.uns["scvi"] = {"history": np.zeros(3)}
    with pytest.raises(KeyError, match=r"adata.uns\['scvi'\] is not a fit. Run sv.tl.scvi"):
        sv.get.convergence(adata)


def test_with_other_fits_their_keys_are_named(fitted):
    with pytest.raises(KeyError, match=r"has no 'nb'. Pass key='scvi'"):
        sv.get.history(fitted, "nb")
