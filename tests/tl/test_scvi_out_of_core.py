"""`tl.scvi` on counts that stay in a file: as good as in memory, the same bits from any file, nothing half done."""

import anndata as ad
import numpy as np
import pytest
import zarr
from distant import set_buffer
from fingerprint import fingerprint

import scanpy_scvi as sv

SIZES = {"n_hidden": 32, "n_latent": 5, "batch_size": 64}
OPTIONS = {**SIZES, "max_epochs": 12, "early_stopping": False, "progress": False}
VERSION = {"zarr_format": 2} if int(zarr.__version__.split(".")[0]) >= 3 else {}
RESULTS = ("obsm", "var", "varm", "layers")


@pytest.fixture(scope="module")
def by_type():
    """2,000 cells sorted by label and batch, the worst order for blocks."""
    adata = sv.datasets.simulate(n_cells=2000, n_genes=60, n_labels=6, density=0.4)
    adata = adata[adata.obs.sort_values(["label", "batch"]).index].copy()
    adata.layers.clear()
    adata.obsm.clear()
    return adata


@pytest.fixture(scope="module")
def stored(by_type, tmp_path_factory):
    """The same in an .h5ad and in zarr."""
    path = tmp_path_factory.mktemp("stored")
    by_type.write_h5ad(path / "x.h5ad")
    ad.io.write_elem(zarr.open_group(str(path / "x.zarr"), mode="w", **VERSION), "X", by_type.X)
    return path


@pytest.fixture(scope="module", autouse=True)
def _small_buffers(by_type):
    """Buffers of a sixth of the counts."""
    with pytest.MonkeyPatch.context() as patch:
        set_buffer(patch, 8 * (by_type.X.nnz + by_type.n_obs) // 6)
        yield


def opened(stored, kind, by_type):
    if kind == "h5ad":
        return ad.read_h5ad(stored / "x.h5ad", backed="r")
    matrix = ad.io.sparse_dataset(zarr.open_group(str(stored / "x.zarr"), mode="r")["X"])
    return ad.AnnData(matrix, obs=by_type.obs.copy(), var=by_type.var.copy())


def results(adata):
    entry = {name: value for name, value in adata.uns["scvi"].items() if name != "params"}
    return fingerprint(entry), *(fingerprint(dict(getattr(adata, slot))) for slot in RESULTS)


def fit(adata, **options):
    sv.tl.scvi(adata, "batch", **(OPTIONS | options))
    return adata


def bound(adata):
    return float(adata.uns["scvi"]["convergence"]["best_elbo"])


@pytest.fixture(scope="module")
def far(stored, by_type):
    """A fit of the file."""
    return fit(opened(stored, "h5ad", by_type))


def test_a_sorted_file_gives_the_bound_of_memory(far, by_type):
    assert far.isbacked
    near = fit(by_type.copy())
    assert bound(far) > bound(near) - 0.002 * abs(bound(near))
    assert np.array_equal(near.uns["scvi"]["validation_cells"], far.uns["scvi"]["validation_cells"])
    assert near.uns["scvi"]["data"] == far.uns["scvi"]["data"]
    assert "scvi_normalized" in near.layers
    assert "scvi_normalized" not in far.layers
    assert "stay in a file" in far.uns["scvi"]["params"]["normalized"]


def test_every_file_gives_the_same_bits_and_so_does_a_second_fit(far, stored, by_type):
    assert results(far) == results(fit(opened(stored, "h5ad", by_type)))
    assert results(far) == results(fit(opened(stored, "zarr", by_type)))
    assert results(far) != results(fit(opened(stored, "h5ad", by_type), random_state=1))


def test_what_follows_a_fit_reads_the_file_and_has_the_bits_of_memory(far, by_type):
    near = by_type.copy()
    near.obsm, near.var, near.varm, near.uns = far.obsm, far.var, far.varm, dict(far.uns)
    assert sv.tl.verify(far) == sv.tl.verify(near)
    genes = list(by_type.var_names[:5])
    expected = sv.tl.normalized_expression(near, genes=genes, inplace=False)
    assert np.array_equal(sv.tl.normalized_expression(far, genes=genes, inplace=False), expected)
    for adata in (far, near):
        sv.tl.rank_genes_groups(adata, "label")
    one, other = (adata.uns.pop("rank_genes_groups_scvi")["names"].tolist() for adata in (far, near))
    assert one == other


def test_a_model_without_an_encoder(stored, by_type):
    adata = opened(stored, "h5ad", by_type)
    sv.tl.dgd(adata, max_epochs=2, n_hidden=16, n_latent=3, progress=False)
    assert np.isfinite(adata.obsm["X_dgd"]).all()


def test_a_file_that_changes_in_training_ends_the_fit_and_leaves_the_object(stored, by_type, tmp_path):
    group = zarr.open_group(str(tmp_path / "x.zarr"), mode="w", **VERSION)
    ad.io.write_elem(group, "X", by_type.X)
    adata = ad.AnnData(ad.io.sparse_dataset(group["X"]), obs=by_type.obs.copy(), var=by_type.var.copy())
    before = fingerprint(adata.obs), fingerprint(dict(adata.uns)), fingerprint(dict(adata.obsm))
    after_first = []

    def change(*_):
        if not after_first:
            group["X/data"][:] = 1
        after_first.append(1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scanpy_scvi._progress.ProgressLine.update", change)
        with pytest.raises(ValueError, match=r"cell number \d+ in /X of .*x\.zarr.*changed meanwhile"):
            fit(adata)
    assert after_first == [1]
    assert before == (fingerprint(adata.obs), fingerprint(dict(adata.uns)), fingerprint(dict(adata.obsm)))
