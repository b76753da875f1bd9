"""A model of scvi-tools becomes a fit like any other; what is expected was computed by scvi-tools."""

import anndata as ad
import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from store.scvi_tools.files import NAMES, cells, changed, path_of, set_init_novelty

import scanpy_scvi as sv
from scanpy_scvi.posterior import ExpressionRequest, normalized_expression
from scanpy_scvi.store import load


def imported(name, adata=None, **options):
    adata = cells() if adata is None else adata
    sv.tl.from_scvi_tools(adata, path_of(name), **options)
    return adata


@pytest.mark.parametrize("name", NAMES)
def test_latent_space_and_expression_are_those_of_scvi_tools(name):
    adata = imported(name)
    mean = adata.obsm[f"{name}_mean"]
    np.testing.assert_allclose(adata.obsm["X_scvi"], mean, rtol=1e-5, atol=1e-5 * mean.std())
    np.testing.assert_allclose(adata.obsm["scvi_latent_var"], adata.obsm[f"{name}_var"], rtol=1e-5)
    fitted = load(adata, "scvi")
    request = ExpressionRequest(batch_weights=None, library_size=1.0)  # each cell in its own batch
    chunks = normalized_expression(fitted.model, fitted.read(adata), request, genes=None, device=torch.device("cpu"))
    np.testing.assert_allclose(np.concatenate([c for _, c in chunks]), adata.layers[f"{name}_scale"], rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_genes_in_another_order_among_others(name):
    """Everything that belongs to a gene follows it."""
    plain, rng = imported(name), np.random.default_rng(0)
    others = ad.AnnData(csr_matrix(np.ones((60, 5), np.float32)), obs=cells().obs)
    others.var_names = [f"other_{i}" for i in range(5)]
    others.layers["counts"] = others.X.copy()
    adata = ad.concat([cells(), others], axis="var", merge="same")
    adata = adata[:, rng.permutation(adata.n_vars)].copy()
    imported(name, adata)
    back = adata[:, plain.var_names]
    np.testing.assert_array_equal(adata.obsm["X_scvi"], plain.obsm["X_scvi"])
    np.testing.assert_array_equal(back.layers["scvi_normalized"], plain.layers["scvi_normalized"])
    assert adata.var["scvi_modelled"].sum() == plain.n_vars
    assert np.isnan(adata[:, list(others.var_names)].layers["scvi_normalized"]).all()
    if name == "full":
        np.testing.assert_array_equal(back.varm["scvi_dispersion"], plain.varm["scvi_dispersion"])
    else:
        np.testing.assert_array_equal(back.var["scvi_dispersion"], plain.var["scvi_dispersion"])
    assert list(adata.uns["scvi"]["var_names"]) == list(plain.var_names)  # the order of the weights


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data will no longer be the default")
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_it_survives_a_file_and_serves_the_other_functions(tmp_path, suffix):
    path = tmp_path / f"cells.{suffix}"
    adata = imported("full")
    getattr(adata, f"write_{suffix}")(path)
    again = ad.read_h5ad(path) if suffix == "h5ad" else ad.read_zarr(path)
    sv.tl.normalized_expression(again, key_added="again")
    np.testing.assert_array_equal(again.layers["again"], adata.layers["scvi_normalized"])
    sv.tl.rank_genes_groups(again, "label")
    assert set(again.uns["rank_genes_groups_scvi"]["names"].dtype.names) == set(again.obs["label"])
    sv.tl.sample(again)
    sv.tl.log_likelihood(again, n_samples=20)
    assert np.isfinite(again.obs["scvi_log_likelihood"]).all()
    sv.tl.trust(again)
    sv.tl.gene_correlation(again, list(again.var_names[:4]), n_samples=50, n_null=0)


def test_history_and_verdict():
    adata = imported("history")
    end, table = sv.get.convergence(adata), sv.get.history(adata)
    assert end["verdict"] == "imported"
    assert end["message"] == "imported from scvi-tools 1.4.2 after 5 epochs"
    assert end["best_epoch"] == 5
    assert len(table) == 5
    assert table["kl"].notna().any()
    assert next(ax.get_ylabel() for ax in sv.pl.history(adata, show=False)) == "ELBO (nats per cell)"
    assert adata.uns["scvi"]["params"]["imported_from"] == "scvi-tools 1.4.2"


def test_without_a_history():
    adata = imported("plain")
    assert sv.get.convergence(adata)["message"] == "imported from scvi-tools 1.4.2 without a history"
    assert len(sv.get.history(adata)) == 0
    assert sv.pl.history(adata, show=False)


def test_another_key_and_a_view_and_no_layer():
    adata = imported("plain", cells()[10:40], key_added="theirs", normalized=False)
    assert not adata.is_view
    assert adata.obsm["X_theirs"].shape == (30, 3)
    assert "theirs_normalized" not in adata.layers
    np.testing.assert_allclose(adata.obsm["X_theirs"], adata.obsm["plain_mean"], atol=1e-5)


def test_the_layer_is_averaged_over_the_batches_of_these_cells():
    adata = cells()
    adata = imported("history", adata[adata.obs["batch"] == adata.obs["batch"].iloc[0]].copy())
    weights = adata.uns["scvi"]["categories"]["batch_weights"]
    assert sorted(weights) == [0, 0, 1]
    np.testing.assert_allclose(adata.layers["scvi_normalized"], 1e4 * adata.layers["history_scale"], rtol=1e-5)


def refuse(adata, error, match, path=None, **options):
    """The call fails, and leaves everything as it was."""
    before = adata.copy()
    with pytest.raises(error, match=match):
        sv.tl.from_scvi_tools(adata, path_of("full") if path is None else path, **options)
    for slot in ("obsm", "layers", "uns", "varm"):
        assert set(getattr(adata, slot)) == set(getattr(before, slot))
    assert list(adata.var) == list(before.var)


def test_genes_that_are_missing():
    refuse(cells()[:, 2:].copy(), KeyError, "2 of the model's 24 genes are not in")


def test_columns_layers_and_categories_that_are_missing():
    adata = cells()
    del adata.obs["donor"]
    refuse(adata, KeyError, "'donor' was not found in `adata.obs`")
    adata = cells()
    adata.obs["lane"] = adata.obs["lane"].replace(3, 4)
    refuse(adata, ValueError, "has the categories '4', which the model has not seen")
    adata = cells()
    del adata.layers["counts"]
    refuse(adata, KeyError, "'counts' was not found in `adata.layers`")


def test_options_and_files_that_are_refused(tmp_path):
    refuse(cells(), ValueError, "normalized", normalized="yes")
    refuse(cells(), ValueError, "key_added", key_added="a/b")
    refuse(cells(), FileNotFoundError, "There is no file", path=tmp_path)
    refuse(cells(), ValueError, "'novelty' is not known", path=changed(tmp_path, set_init_novelty))
    adata = cells()
    adata.uns["scvi"] = "mine"
    refuse(adata, ValueError, "was not written by scanpy_scvi")


def test_torch_is_left_as_it_was():
    before = torch.random.get_rng_state(), torch.serialization.get_safe_globals()
    imported("full")
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert torch.serialization.get_safe_globals() == before[1]
