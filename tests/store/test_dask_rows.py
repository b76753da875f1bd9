"""Counts in a dask array are read chunk by chunk, and are the counts that NumPy or SciPy would hold."""

import re
from pathlib import Path

import anndata as ad
import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from anndata.experimental import read_lazy, write_dispatched
from distant import set_buffer
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import scanpy_scvi as sv
from scanpy_scvi.store.dask_rows import DaskRows
from scanpy_scvi.store.read import read_counts
from scanpy_scvi.store.stored_rows import stored_rows

N_CELLS, N_GENES = 120, 30
COUNTS = sparse.csr_matrix(np.random.default_rng(0).poisson(0.4, (N_CELLS, N_GENES)).astype(np.float32))
PARTS = ("counts", "cells", "genes")
HOW_BIG = Path(__file__).parents[2] / "docs" / "how_big.md"
QUIET = {"max_epochs": 2, "progress": False, "batch_size": 32}


@pytest.fixture(autouse=True)
def _one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


def dense(adata):
    return adata.X.toarray() if sparse.issparse(adata.X) else adata.X


def lazy(chunks, make=sparse.csr_matrix):
    return da.from_array(COUNTS.toarray(), chunks=(chunks, N_GENES)).map_blocks(make)


@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=12), limit=st.integers(1, 2000), start=st.integers(0, 60)
)
def test_ranges_cover_everything_once_and_end_with_chunks(sizes, limit, start):
    array = da.zeros((sum(sizes), 4), chunks=(tuple(sizes), 4), dtype=np.float32)
    stored, stop = DaskRows(array, "x", limit), sum(sizes)
    start = min(start, stop - 1)
    ranges = list(stored.at_once(start, stop))
    assert ranges[0][0] == start
    assert ranges[-1][1] == stop
    assert all(a < b for a, b in ranges)
    assert [b for _, b in ranges[:-1]] == [a for a, _ in ranges[1:]]
    ends = set(np.cumsum(sizes).tolist())
    assert all(b in ends for _, b in ranges)
    longest = max(limit // 16, 1)
    assert all(b - a <= longest or not ends & set(range(a + 1, b)) for a, b in ranges)  # longer ones are one chunk


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix, sparse.csr_array, sparse.csc_matrix])
def test_rows_are_those_of_scipy(make, monkeypatch):
    set_buffer(monkeypatch, 1000)
    adata = sv.datasets.simulate(n_cells=N_CELLS, n_genes=N_GENES)
    adata.X = lazy(37, make)
    genes = np.array([3, 0, 17])
    counts = read_counts(adata, adata.X, None, genes)
    assert not counts.in_memory
    rows = np.array([119, 5, 5, 64, 0])
    got = counts.take(rows)
    found = sparse.csr_array((got.data, got.indices, got.indptr), shape=(len(rows), len(genes)))
    np.testing.assert_array_equal(found.toarray(), COUNTS.toarray()[rows][:, genes])


def test_chunks_across_genes_are_joined():
    stored = stored_rows(da.from_array(COUNTS.toarray(), chunks=(50, 7)), "adata.X")
    np.testing.assert_array_equal(stored.read(30, 110).toarray(), COUNTS.toarray()[30:110])


def test_a_fit_has_the_bits_of_one_in_memory():
    inside = sv.datasets.simulate(n_cells=N_CELLS, n_genes=N_GENES, random_state=1)
    outside = inside.copy()
    outside.X = da.from_array(dense(inside), chunks=(37, 30))
    sv.tl.scvi(inside, "batch", **QUIET)
    sv.tl.scvi(outside, "batch", **QUIET)
    np.testing.assert_array_equal(outside.obsm["X_scvi"], inside.obsm["X_scvi"])
    assert isinstance(outside.X, da.Array)


def test_a_fit_beyond_one_buffer_is_one_of_the_same_cells_in_another_order(monkeypatch):
    adata = sv.datasets.simulate(n_cells=N_CELLS, n_genes=N_GENES, random_state=1)
    adata.X = da.from_array(dense(adata), chunks=(20, 30))
    sv.tl.scvi(adata, "batch", key_added="whole", **QUIET)
    set_buffer(monkeypatch, 1000)
    sv.tl.scvi(adata, "batch", key_added="blocks", **QUIET)
    bounds = [adata.uns[key]["convergence"]["best_elbo"] for key in ("whole", "blocks")]
    assert bounds[0] == pytest.approx(bounds[1], rel=0.02)


def test_files_of_a_collection_are_fitted_as_one(tmp_path):
    """Sharded parts under `dataset_0`, ..., as annbatch writes them, read by what docs/how_big.md says."""
    pytest.importorskip("zarr", "3")
    whole = sv.datasets.simulate(n_cells=N_CELLS, n_genes=N_GENES, random_state=1)
    whole.X = sparse.csr_matrix(whole.X)
    group = zarr.open_group(tmp_path / "collection.zarr", mode="w", zarr_format=3)
    sharded = {"chunks": (64,), "shards": (256,)}

    def write(write_elem, store, key, elem, dataset_kwargs, iospec):
        more = sharded if iospec.encoding_type == "csr_matrix" else {}
        write_elem(store, key, elem, dataset_kwargs={**dataset_kwargs, **more})

    of_anndata = {"auto_shard_zarr_v3": False} if "auto_shard_zarr_v3" in dir(ad.settings) else {}  # it would warn
    with ad.settings.override(**of_anndata):
        for i, cells in enumerate([slice(0, 50), slice(50, 90), slice(90, N_CELLS)]):
            part = ad.AnnData(whole.X[cells], obs=whole.obs[cells], var=whole.var)
            write_dispatched(group, f"dataset_{i}", part, callback=write)
    assert group["dataset_0/X/data"].shards == (256,)
    example = re.search(r"```python\n(import anndata.*?)```", HOW_BIG.read_text(), re.DOTALL)[1]
    found = {}
    exec(example.replace("collection.zarr", str(tmp_path / "collection.zarr")), found)
    adata = found["adata"]
    assert isinstance(adata.X, da.Array)
    assert adata.obs_names.tolist() == whole.obs_names.tolist()
    adata.obs["batch"] = adata.obs["batch"].astype(whole.obs["batch"].dtype)
    sv.tl.scvi(adata, "batch", **QUIET)
    sv.tl.scvi(whole, "batch", **QUIET)
    np.testing.assert_array_equal(adata.obsm["X_scvi"], whole.obsm["X_scvi"])


def test_reports_read_them():
    adata = sv.datasets.simulate(n_cells=N_CELLS, n_genes=N_GENES)
    adata.X = COUNTS
    expected = sv.pp.check(adata)
    adata.X = lazy(37)
    found = sv.pp.check(adata)
    assert {part: found[part] for part in PARTS} == {part: expected[part] for part in PARTS}


def test_lazy_tables_are_to_be_read_and_lazy_counts_need_not(tmp_path):
    adata = sv.datasets.simulate(n_cells=N_CELLS, n_genes=N_GENES, random_state=1)
    adata.write_h5ad(tmp_path / "x.h5ad")
    lazy = read_lazy(tmp_path / "x.h5ad")
    with pytest.raises(TypeError, match=r"`adata.obs` is a Dataset2D.*`adata = .*`") as error:
        sv.tl.scvi(lazy, "batch", **QUIET)
    read = eval(re.search("`adata = (.*)`", str(error.value))[1], {"anndata": ad, "adata": lazy})
    sv.tl.scvi(read, "batch", **QUIET)
    sv.tl.scvi(adata, "batch", **QUIET)
    np.testing.assert_array_equal(read.obsm["X_scvi"], adata.obsm["X_scvi"])


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        stored_rows(lazy(37)[da.from_array(np.arange(N_CELLS) > 3, chunks=37)], "adata.X")

    def broken(_):
        msg = "no such bucket"
        raise OSError(msg)

    array = da.zeros((10, 3), chunks=(5, 3)).map_blocks(broken, dtype=float, meta=np.empty((0, 0)))
    with pytest.raises(ValueError, match=r"`adata.X` could not be computed for cells 0 to 4: OSError: no such bucket"):
        stored_rows(array, "adata.X").read(0, 4)


def test_values_that_are_no_counts_are_named():
    adata = sv.datasets.simulate(n_cells=N_CELLS, n_genes=N_GENES)
    adata.X = lazy(37) * 0.5
    with pytest.raises(ValueError, match="raw counts were expected"):
        read_counts(adata, adata.X, None, np.arange(N_GENES))
