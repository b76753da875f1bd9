"""`tl.scvi` of a file: what it gives is what the object gives."""

import gc
import tracemalloc

import anndata as ad
import h5py
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from files import FORMATS, OPTIONS, contents, read, write
from fingerprint import fingerprint
from scipy import sparse

import scanpy_scvi as sv

zarr = pytest.importorskip("zarr")

VERSION = {"zarr_format": 2} if int(zarr.__version__.split(".")[0]) >= 3 else {}
pytestmark = [  # anndata 0.12 on its own defaults
    pytest.mark.filterwarnings("ignore:Writing zarr v2 data will no longer be the default"),
    pytest.mark.filterwarnings("ignore:zarr v3 autosharding will be the default"),
]


@pytest.fixture
def full(adata):
    """An object with something in every slot."""
    adata.obsm["X_pca"] = np.random.default_rng(0).normal(size=(120, 4))
    adata.obsm["table"] = adata.obs[["age"]].copy()
    adata.obsp["distances"] = sparse.random_array((120, 120), density=0.1, rng=np.random.default_rng(1), format="csr")
    adata.varm["loadings"] = np.ones((100, 2), np.float32)
    adata.layers["dense"] = adata.X.toarray()
    adata.layers["by_genes"] = sparse.csc_matrix(adata.X)
    adata.raw = adata
    adata.uns["told"] = {"text": "a", "numbers": np.arange(3), "nested": {"yes": True}}
    return adata


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("layer", [None, "dense", "by_genes"])
def test_the_file_has_what_the_object_has(suffix, layer, full, tmp_path):
    options = OPTIONS | {"layer": layer, "groupby": "label", "mask_var": np.arange(100) < 90}
    path = write(full, tmp_path / f"a{suffix}")
    assert sv.tl.scvi(path, "batch", **options) is None
    sv.tl.scvi(full, "batch", **options)
    expected = read(write(full, tmp_path / f"expected{suffix}"))
    written = read(path)
    for found in (written, expected):
        ranked = found.uns["rank_genes_groups_scvi"]
        ranked["names"] = ranked["names"].tolist()  # their bytes are places in memory
    assert fingerprint(written) == fingerprint(expected)
    assert list(written.obs) == list(expected.obs)
    assert list(written.var) == list(expected.var)
    assert written.raw.X.shape == (120, 100)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"a{suffix}", f"expected{suffix}"]


@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize("target", FORMATS)
def test_into_a_new_file(source, target, full, tmp_path):
    path, out = write(full, tmp_path / f"a{source}"), tmp_path / f"b{target}"
    before = contents(path) if path.is_dir() else path.read_bytes()
    sv.tl.scvi(path, "batch", out=str(out), **OPTIONS)
    assert (contents(path) if path.is_dir() else path.read_bytes()) == before
    expected = read(path)
    sv.tl.scvi(expected, "batch", **OPTIONS)
    assert fingerprint(read(out)) == fingerprint(read(write(expected, tmp_path / f"expected{target}")))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_both_versions_of_zarr(zarr_format, adata, tmp_path):
    if not hasattr(ad.settings, "zarr_write_format"):
        pytest.skip("this anndata writes one version")
    path = tmp_path / "a.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    ad.io.write_elem(group, "/", adata)
    sv.tl.scvi(path, "batch", **OPTIONS)
    sv.tl.scvi(adata, "batch", **OPTIONS)
    assert zarr.open_group(path, mode="r").metadata.zarr_format == zarr_format
    assert np.array_equal(read(path).obsm["X_scvi"], adata.obsm["X_scvi"])


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_second_fit_leaves_nothing_of_the_first(suffix, adata, tmp_path):
    path = write(adata, tmp_path / f"a{suffix}")
    sv.tl.scvi(path, "batch", dispersion="gene-batch", normalized=True, **OPTIONS)
    assert "scvi_dispersion" in read(path).varm
    sv.tl.scvi(path, "batch", normalized=False, **OPTIONS)
    sv.tl.scvi(adata, "batch", normalized=False, **OPTIONS)
    assert fingerprint(read(path)) == fingerprint(read(write(adata, tmp_path / f"expected{suffix}")))


def test_arrays_are_compressed_as_the_counts_are(adata, tmp_path):
    for compression in ("gzip", None):
        path = tmp_path / f"{compression}.h5ad"
        adata.write_h5ad(path, compression=compression)
        sv.tl.scvi(path, "batch", **OPTIONS)
        with h5py.File(path) as file:
            found = [file[name].compression for name in ("X/data", "obsm/X_scvi", "layers/scvi_normalized")]
        assert found == [compression] * 3


def test_what_asks_a_fit_works_on_the_file(adata, tmp_path):
    path = write(adata, tmp_path / "a.h5ad")
    sv.tl.scvi(path, "batch", groupby="label", **OPTIONS)
    written = read(path)
    layer = written.layers["scvi_normalized"].copy()
    sv.tl.normalized_expression(written)
    assert np.array_equal(written.layers["scvi_normalized"], layer)
    assert len(sv.get.history(written)) == 3
    assert sv.get.convergence(written)["n_restarts"] == 0
    assert len(sv.get.rank_genes_groups_df(written, group=str(written.obs["label"].iloc[0])))
    assert len(sc.get.rank_genes_groups_df(written, None, key="rank_genes_groups_scvi"))
    sv.tl.verify(written)
    for draw in (sv.pl.history, sv.pl.rank_genes_groups):
        draw(written, show=False)
    plt.close("all")


def test_matrices_that_are_not_asked_for_stay_on_disk(tmp_path):
    n_cells, n_genes = 1500, 2000
    adata = sv.datasets.simulate(n_cells=n_cells, n_genes=n_genes, density=0.05)
    adata.layers.clear()
    adata.layers["large"] = np.zeros((n_cells, n_genes))
    adata.obsm["large"] = np.zeros((n_cells, n_genes))
    path = tmp_path / "a.h5ad"
    adata.write_h5ad(path, compression="gzip")
    size = adata.layers["large"].nbytes
    del adata
    gc.collect()
    options = OPTIONS | {"mask_var": np.arange(n_genes) < 400, "max_epochs": 1, "batch_size": 512, "normalized": True}
    sv.tl.scvi(write(sv.datasets.simulate(n_cells=50, n_genes=n_genes), tmp_path / "b.h5ad"), **options)  # compiles
    tracemalloc.start()
    sv.tl.scvi(path, **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 2  # the normalized layer alone is half of that size
    assert read(path).layers["scvi_normalized"].shape == (n_cells, n_genes)


def tables_with_what_cannot_be_written(adata):
    """Columns that anndata reads always, and writes only where the user has allowed it."""
    for table in (adata.obs, adata.var):
        table["text"] = pd.array([f"text {i}" for i in range(len(table) - 1)] + [None], dtype="string")
        table["kind"] = pd.Categorical(np.arange(len(table)) % 3).rename_categories(pd.array(["a", "b", "c"], "string"))
        table["flag"] = pd.array([True, None] * (len(table) // 2), dtype="boolean")
    adata.uns["table"] = adata.var.copy()
    return adata


@pytest.mark.skipif(not hasattr(ad.settings, "allow_write_nullable_strings"), reason="this anndata has no such columns")
@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize("target", FORMATS)
def test_columns_that_the_fit_does_not_change_are_copied_as_they_lie_in_the_file(source, target, adata, tmp_path):
    path, out = tmp_path / f"a{source}", tmp_path / f"b{target}"
    with ad.settings.override(allow_write_nullable_strings=True):
        write(tables_with_what_cannot_be_written(adata), path)
    expected = read(path)
    for _ in range(2):  # the second replaces columns of the first
        sv.tl.scvi(path, "batch", out=out, **OPTIONS)
        path, written = out, read(out)
        for name in ("obs", "var"):
            before = getattr(expected, name)
            pd.testing.assert_frame_equal(getattr(written, name)[before.columns], before)
        pd.testing.assert_frame_equal(written.uns["table"], expected.uns["table"])
        assert list(written.var)[-2:] == ["scvi_modelled", "scvi_dispersion"]


def test_what_was_compressed_in_zarr_is_compressed_in_h5ad(full, tmp_path):
    path, out = write(full, tmp_path / "a.zarr"), tmp_path / "b.h5ad"
    sv.tl.scvi(path, "batch", out=out, **OPTIONS)
    with h5py.File(out) as file:
        names = ("X/data", "layers/dense", "obs/batch/codes", "raw/X/indices", "obsm/X_scvi", "layers/scvi_normalized")
        assert [file[name].compression for name in names] == ["gzip"] * len(names)


def test_what_was_not_compressed_in_zarr_is_not_in_h5ad(adata, tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", **VERSION)
    ad.io.write_elem(group, "/", adata, dataset_kwargs={"compressor": None})
    sv.tl.scvi(tmp_path / "a.zarr", "batch", out=tmp_path / "b.h5ad", **OPTIONS)
    with h5py.File(tmp_path / "b.h5ad") as file:
        assert [file[name].compression for name in ("X/data", "obsm/X_scvi", "layers/scvi_normalized")] == [None] * 3


def test_links_and_rights_stay(adata, tmp_path):
    (tmp_path / "far").mkdir()
    path = write(adata, tmp_path / "far" / "a.h5ad")
    path.chmod(0o640)
    link = tmp_path / "link.h5ad"
    link.symlink_to(path)
    sv.tl.scvi(link, "batch", **OPTIONS)
    assert link.is_symlink()
    assert "X_scvi" in read(path).obsm
    assert path.stat().st_mode & 0o777 == 0o640
