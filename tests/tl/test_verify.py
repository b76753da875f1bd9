"""Each way in which data, model and results may come apart, done to a copy of one fit."""

import json

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

import scanpy_scvi as sv


@pytest.fixture(scope="module")
def fit() -> ad.AnnData:
    adata = sv.datasets.simulate(n_cells=150, n_genes=30, n_batches=2, density=0.5)
    adata.var["highly_variable"] = np.arange(30) < 20
    sv.tl.scvi(adata, "batch", max_epochs=3, n_hidden=16, n_latent=4, progress=False)
    return adata


@pytest.fixture
def adata(fit) -> ad.AnnData:
    return fit.copy()


def levels(adata: ad.AnnData) -> dict[str, str]:
    """Level of each topic; what is plain `ok` is left out."""
    return {f["topic"]: f["level"] for f in sv.tl.verify(adata)["findings"] if f["level"] != "ok"}


def message(adata: ad.AnnData, topic: str) -> str:
    return next(f["message"] for f in sv.tl.verify(adata)["findings"] if f["topic"] == topic)


def test_an_untouched_fit_is_in_order_and_the_object_stays_as_it_is(adata, fit, capsys):
    report = sv.tl.verify(adata)
    assert report["level"] == "ok"
    topics = ["model", "versions", "genes", "counts", "covariates", "latent", "normalized"]
    assert [f["topic"] for f in report["findings"]] == topics
    assert json.loads(json.dumps(report)) == report
    shown = capsys.readouterr().err.splitlines()
    assert shown[0] == "verification of 150 cells x 30 genes with `uns['scvi']`: nothing to object"
    assert len(shown) == 1 + len(topics)
    assert set(adata.obsm) == set(fit.obsm)
    assert set(adata.uns) == set(fit.uns)
    np.testing.assert_array_equal(adata.obsm["X_scvi"], fit.obsm["X_scvi"])


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore:Writing zarr v2 data will no longer be the default")  # anndata's own default
def test_a_reloaded_file_is_in_order(adata, tmp_path, suffix):
    path = tmp_path / f"fit.{suffix}"
    if suffix == "h5ad":
        adata.write_h5ad(path)
        assert levels(ad.read_h5ad(path)) == {}
        assert levels(ad.read_h5ad(path, backed="r")) == {}
    else:
        adata.write_zarr(path)
        assert levels(ad.read_zarr(path)) == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda X: X.toarray(),
        lambda X: X.astype(np.int64),
        lambda X: sparse.csc_matrix(X),
        lambda X: X.astype(np.float64).toarray(),
    ],
)
def test_how_counts_are_stored_does_not_matter(adata, change):
    adata.X = change(adata.X)
    assert levels(adata) == {}


def test_one_changed_count_is_noticed(adata):
    adata.X = adata.X.toarray()
    adata.X[77, 3] += 1
    found = levels(adata)
    assert found["counts"] == "error"
    assert "changed since the fit" in message(adata, "counts")


def test_genes_outside_the_model_may_change(adata):
    adata.X = adata.X.toarray()
    adata.X[:, 25] += 1
    assert levels(adata) == {}


def test_doubled_counts(adata):
    adata.X = adata.X * 2
    assert levels(adata) == {"counts": "error", "latent": "error", "normalized": "warning"}


def test_normalised_counts_are_reported_in_the_words_of_the_reader(adata):
    adata.X = adata.X.multiply(0.5).tocsr()
    assert levels(adata) == {"counts": "error"}
    assert "raw counts were expected" in message(adata, "counts")


def test_a_subset_of_the_cells_and_genes_in_another_order(adata):
    subset = adata[::2, np.r_[29:19:-1, :20]].copy()
    assert levels(subset) == {"counts": "note"}
    assert "75 cells where the fit had 150" in message(subset, "counts")
    backwards = adata[:, ::-1].copy()
    assert levels(backwards) == {"genes": "note"}
    shuffled = adata[::-1].copy()
    assert levels(shuffled) == {"counts": "note"}
    assert "other cells, or their order" in message(shuffled, "counts")


def test_exchanged_names_of_genes(adata):
    names = adata.var_names.to_numpy().copy()
    names[[3, 25]] = names[[25, 3]]
    adata.var_names = names
    assert levels(adata)["genes"] == "error"
    assert "'gene_25', 'gene_3'" in message(adata, "genes")


def test_a_missing_gene_and_a_damaged_model_end_the_report(adata):
    assert levels(adata[:, 1:].copy()) == {"model": "error"}
    assert "1 of the model's 20 genes" in message(adata[:, 1:].copy(), "model")
    del adata.uns["scvi"]["state"]["encoder.mean.bias"]
    assert levels(adata) == {"model": "error"}


def test_latent_means_of_other_cells_or_another_fit(adata):
    adata.obsm["X_scvi"] = adata.obsm["X_scvi"][::-1].copy()
    assert levels(adata) == {"latent": "error"}
    adata.obsm["X_scvi"] = adata.obsm["X_scvi"][:, :2]
    assert "2 columns, but the model has 4" in message(adata, "latent")
    adata.obsm["X_scvi"] = np.full((150, 4), np.nan)
    assert levels(adata) == {"latent": "error"}
    del adata.obsm["X_scvi"]
    assert levels(adata) == {"latent": "note"}


def test_weights_of_another_fit(adata):
    other = adata.copy()
    sv.tl.scvi(other, "batch", max_epochs=3, n_hidden=16, n_latent=4, random_state=1, progress=False)
    adata.uns["scvi"]["state"] = other.uns["scvi"]["state"]
    assert levels(adata) == {"latent": "error", "normalized": "warning"}


def test_a_layer_with_other_options(adata):
    sv.tl.normalized_expression(adata, transform_batch="batch_0")
    assert levels(adata) == {"normalized": "warning"}


def test_an_unknown_batch(adata):
    adata.obs["batch"] = adata.obs["batch"].cat.rename_categories({"batch_1": "new"})
    assert levels(adata) == {"counts": "error"}
    assert "'new'" in message(adata, "counts")


def test_other_versions(adata):
    adata.uns["scvi"]["versions"]["numba"] = "0.1"
    assert levels(adata) == {"versions": "note"}
    assert "numba 0.1 (now " in message(adata, "versions")


def test_a_fit_without_fingerprints(adata):
    del adata.uns["scvi"]["data"]
    assert levels(adata) == {"counts": "note"}


def test_labels_from_another_reference_than_the_mapping(adata):
    adata.uns["scvi_mapping"] = {"reference_id": "a"}
    assert levels(adata) == {}
    adata.uns["scvi_transfer"] = {"reference_id": "b"}
    assert levels(adata) == {"mapping": "error"}


def test_no_fit_is_an_error(adata):
    with pytest.raises(KeyError, match="holds no fitted model"):
        sv.tl.verify(adata, key="other")
    with pytest.raises(KeyError, match="holds no fitted model"):
        sv.tl.verify(sv.datasets.simulate(n_cells=20, n_genes=5))


def test_a_slim_object_has_nothing_to_compare_with(adata):
    sv.tl.slim(adata)
    assert levels(adata) == {"counts": "note"}
    assert "dropped by `tl.slim`" in message(adata, "counts")
    assert levels(adata[::2].copy()) == {"counts": "note"}


def test_of_a_slim_object_the_cells_looked_at_are_those_stored(adata, monkeypatch):
    """Every third cell is decoded again, from its own latent state."""
    sv.tl.slim(adata)
    sv.tl.normalized_expression(adata)
    monkeypatch.setattr("scanpy_scvi.tl._verify.N_CELLS", 50)
    assert levels(adata) == {"counts": "note"}
    adata.layers["scvi_normalized"] = adata.layers["scvi_normalized"][::-1].copy()
    assert levels(adata)["normalized"] == "warning"


def test_a_fit_without_its_model_is_no_error(adata, tmp_path):
    sv.tl.scvi(adata, "batch", max_epochs=1, store_model=False, key_added="small", progress=False)
    adata.write_h5ad(tmp_path / "small.h5ad")
    report = sv.tl.verify(ad.read_h5ad(tmp_path / "small.h5ad"), key="small")
    assert [(f["level"], f["topic"]) for f in report["findings"]] == [("note", "model"), ("ok", "versions")]


def test_labels_from_before_a_new_fit(adata):
    reference, query = adata[:75].copy(), adata[75:].copy()
    sv.tl.transfer_labels(query, reference, "label")
    assert "mapping" not in levels(query)
    sv.tl.scvi(query, "batch", max_epochs=1, progress=False)
    assert levels(query) == {"mapping": "error"}


@pytest.mark.parametrize("damaged", ["many", -1, None])
def test_a_damaged_fingerprint_is_told_and_not_raised(adata, damaged):
    adata.uns["scvi"]["data"]["n_cells"] = damaged
    assert levels(adata) == {"counts": "error"}
