"""What is asked of a fit whose counts stay in a file: the answers of memory, and errors that come first."""

from collections.abc import Mapping

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import zarr
from distant import set_buffer
from fingerprint import fingerprint

import scanpy_scvi as sv
from scanpy_scvi.store.load import load
from scanpy_scvi.training.sources import near as near_counts

FITTING = {"n_hidden": 32, "n_latent": 5, "batch_size": 64, "max_epochs": 3, "progress": False}
MAPPING = {"max_epochs": 2, "early_stopping": False, "batch_size": 64, "progress": False}
GENES = ["gene_3", "gene_0"]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """Path of a file with 1,200 cells and a fit; a zarr of the same lies beside it."""
    path = tmp_path_factory.mktemp("fitted")
    adata = sv.datasets.simulate(n_cells=1200, n_genes=60, n_labels=3, n_batches=3, density=0.4)
    adata.layers.clear()
    adata.obsm.clear()
    adata.write_h5ad(path / "x.h5ad")
    for name in ("fitted.h5ad", "fitted.zarr"):
        sv.tl.scvi(path / "x.h5ad", "batch", out=path / name, normalized=False, **FITTING)
    return path / "fitted.h5ad"


@pytest.fixture(scope="module", autouse=True)
def _small_buffers(fitted):
    """Buffers of a sixth of the counts."""
    with pytest.MonkeyPatch.context() as patch:
        x = ad.read_h5ad(fitted).X
        set_buffer(patch, 8 * (x.nnz + x.shape[0]) // 6)
        yield


def zarr_of(path):
    group = zarr.open_group(str(path.with_suffix(".zarr")), mode="r")
    parts = {name: ad.io.read_elem(group[name]) for name in ("obs", "var", "obsm", "varm", "uns")}
    return ad.AnnData(ad.io.sparse_dataset(group["X"]), **parts)


@pytest.fixture(params=["h5ad", "zarr"])
def kind(request):
    return request.param


@pytest.fixture
def far(kind, fitted):
    """The fit, its counts in a file."""
    found = ad.read_h5ad(fitted, backed="r") if kind == "h5ad" else zarr_of(fitted)
    assert not load(found, "scvi").read(found).counts.in_memory
    return found


@pytest.fixture
def near(kind, fitted):
    """The same in memory."""
    return ad.read_h5ad(fitted) if kind == "h5ad" else ad.read_zarr(fitted.with_suffix(".zarr"))


def without_fit(adata, *, new=0):
    """The cells as a query, of which the last `new` are of new batches."""
    adata.obsm.clear()
    adata.varm.clear()
    adata.uns.clear()
    adata.var = adata.var[[]]
    batch = adata.obs["batch"].astype(str).to_numpy()
    batch[adata.n_obs - new :] = [f"new_{name}" for name in batch[adata.n_obs - new :]]
    adata.obs["batch"] = pd.Categorical(batch)
    return adata


def in_order(value):
    """The same with the keys of all dictionaries sorted: files keep them in orders of their own."""
    return {key: in_order(value[key]) for key in sorted(value)} if isinstance(value, Mapping) else value


def slots(adata):
    """All that is beside the counts."""
    return {name: fingerprint(in_order(dict(getattr(adata, name)))) for name in ("obs", "obsm", "var", "varm", "uns")}


def differing(one, other):
    """Names of slots that differ."""
    return [name for name, value in slots(one).items() if value != slots(other)[name]]


@pytest.mark.parametrize("weights", ["uniform", "importance"])
def test_genes_of_groups_have_the_bits_of_memory(far, near, weights):
    for adata in (far, near):
        groups = {"groups": ["label_1"]} if weights == "importance" else {}
        sv.tl.rank_genes_groups(adata, "label", weights=weights, n_samples=300, **groups)
    tables = [adata.uns["rank_genes_groups_scvi_table"] for adata in (far, near)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    names = [adata.uns["rank_genes_groups_scvi"]["names"].tolist() for adata in (far, near)]
    assert names[0] == names[1]


@pytest.mark.parametrize("options", [{}, {"n_samples": 3, "library_size": "latent"}, {"transform_batch": "observed"}])
def test_expression_of_a_few_genes_has_the_bits_of_memory(far, near, options):
    found = sv.tl.normalized_expression(far, genes=GENES, inplace=False, **options)
    assert found.columns.to_list() == GENES
    pd.testing.assert_frame_equal(
        found, sv.tl.normalized_expression(near, genes=GENES, inplace=False, **options), check_exact=True
    )


def test_trust_has_the_bits_of_memory(far, near):
    for adata in (far, near):
        sv.tl.trust(adata, n_samples=3)
    assert differing(far, near) == []
    assert far.obs["scvi_trust"].between(0, 1).all()


def test_checks_of_the_model_have_the_bits_of_memory(far, near):
    for adata in (far, near):
        sv.tl.log_likelihood(adata, n_samples=3)
        sv.tl.posterior_predictive_check(adata, n_samples=10)
    assert differing(far, near) == []
    assert sv.tl.verify(far) == sv.tl.verify(near)


def test_new_cells_like_those_of_a_fit_have_the_bits_of_memory(far, near):
    drawn, other = (sv.tl.sample(adata, 50) for adata in (far, near))
    assert fingerprint(drawn.X) == fingerprint(other.X)


def test_a_slim_copy_has_the_bits_of_memory_and_answers(far, near, tmp_path):
    before = slots(far)
    slim = sv.tl.slim(far, copy=True)
    assert slots(far) == before
    expected = sv.tl.slim(near, copy=True)
    assert slim.X is None
    assert differing(slim, expected) == []
    slim.write_h5ad(tmp_path / "slim.h5ad")
    again = sv.tl.normalized_expression(ad.read_h5ad(tmp_path / "slim.h5ad"), genes=GENES, inplace=False)
    assert again.equals(sv.tl.normalized_expression(far, genes=GENES, inplace=False))


@pytest.mark.parametrize("new", [0, 150], ids=["known", "few_new"])
def test_mapped_cells_have_the_bits_of_memory(far, near, fitted, new):
    query, other = without_fit(far, new=new), without_fit(near, new=new)
    sv.tl.map_query(query, fitted, **MAPPING)
    sv.tl.map_query(other, ad.read_h5ad(fitted, backed="r"), **MAPPING)
    assert differing(query, other) == []
    for adata in (query, other):
        sv.tl.transfer_labels(adata, fitted, "label")
    assert differing(query, other) == []


def test_new_batches_of_many_cells_are_learned_from_the_file(far, near, fitted):
    query, other = without_fit(far, new=1200), without_fit(near, new=1200)
    learned_from = []

    def noted(counts):
        found = near_counts(counts)
        learned_from.append((found.n_cells, found.in_memory))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scanpy_scvi.training.batches.near", noted)
        sv.tl.map_query(query, fitted, **MAPPING)
    assert learned_from == [(1200, False)]
    sv.tl.map_query(other, fitted, **MAPPING)
    bounds = [float(a.uns["scvi_mapping"]["convergence"]["best_elbo"]) for a in (query, other)]
    assert abs(bounds[0] - bounds[1]) < 0.005 * abs(bounds[1])  # minibatches come in another order
    z, z_other = (a.obsm["X_scvi"] for a in (query, other))
    assert np.abs(z - z_other).mean() < 0.1 * z_other.std()
    assert query.uns["scvi_mapping"]["new_batches"].tolist() == other.uns["scvi_mapping"]["new_batches"].tolist()


def test_a_copy_of_what_lies_in_a_file_is_refused_before_anything_is_done(fitted):
    query = without_fit(ad.read_h5ad(fitted, backed="r"))
    before = slots(query)
    with pytest.raises(ValueError, match=r"`copy` is True, but the counts of `query` stay in its file"):
        sv.tl.map_query(query, fitted, copy=True, **MAPPING)
    assert slots(query) == before


def test_a_view_of_a_file_takes_no_layer_and_says_so_first(fitted):
    view = ad.read_h5ad(fitted, backed="r")[:100]
    with pytest.raises(ValueError, match=r"view of a file, which cannot take results"):
        sv.tl.normalized_expression(view, key="scvi")
    assert sv.tl.normalized_expression(view, genes=GENES, inplace=False).shape == (100, 2)


def test_the_file_stays_as_it_was(fitted, far):
    before = fitted.read_bytes()
    sv.tl.trust(far, n_samples=1)
    sv.tl.normalized_expression(far, genes=GENES)
    assert "scvi_normalized" in far.layers
    assert fitted.read_bytes() == before
