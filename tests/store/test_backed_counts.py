"""Rows of a matrix in a file: what scipy gives, whatever the file, and one clear error where it is damaged."""

import shutil
import warnings
from contextlib import nullcontext
from types import SimpleNamespace

import anndata as ad
import h5py
import numpy as np
import pytest
import zarr
from distant import set_buffer
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from scanpy_scvi.store.backed_counts import BackedCounts, Genes, read_stored
from scanpy_scvi.store.read import read_counts
from scanpy_scvi.store.stored_rows import stored_rows

N_CELLS, N_GENES = 300, 40
KINDS = ["h5ad", "h5ad gzip", "h5ad dense", "zarr 2", "zarr 3", "zarr sharded", "zarr dense"]
ZARR_V3 = int(zarr.__version__.split(".")[0]) >= 3


def counts(seed=0):
    rng = np.random.default_rng(seed)
    x = sparse.random_array((N_CELLS, N_GENES), density=0.3, format="csr", rng=rng).astype(np.float32)
    x.data = rng.integers(1, 500, len(x.data)).astype(np.float32)
    return x


COUNTS = counts()


@pytest.fixture(scope="module", autouse=True)
def _without_shards():
    """What anndata 0.12 would warn of for format 3."""
    if "auto_shard_zarr_v3" not in dir(ad.settings):
        yield
        return
    with ad.settings.override(auto_shard_zarr_v3=False):
        yield


def write(path, kind, x=COUNTS):
    """Write CSR or dense counts as AnnData does; return the matrix on disk."""
    if kind.startswith("h5ad"):
        group = h5py.File(path / "x.h5ad", "w")
        options = {"compression": "gzip", "chunks": (500,)} if kind == "h5ad gzip" else {}
    else:
        version = 2 if kind == "zarr 2" else 3
        group = zarr.open_group(str(path / "x.zarr"), mode="w", **({"zarr_format": version} if ZARR_V3 else {}))
        options = {"chunks": (300,)}
    if kind == "zarr sharded":
        sharded = group.create_group("X")
        sharded.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": list(x.shape)})
        for name in ("data", "indices", "indptr"):
            sharded.create_array(name, data=getattr(x, name), chunks=(100,), shards=(400,))
    elif kind.endswith("dense"):
        ad.io.write_elem(group, "X", x.toarray())
    else:
        ad.io.write_elem(group, "X", sparse.csr_matrix(x), dataset_kwargs=options)
    if kind.startswith("h5ad"):
        group.close()
        group = h5py.File(path / "x.h5ad", "r", rdcc_nbytes=0)  # nothing is kept
    return group["X"] if kind.endswith("dense") else ad.io.sparse_dataset(group["X"])


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """The same counts in files of every kind."""
    kinds = KINDS if ZARR_V3 else [kind for kind in KINDS if kind not in {"zarr 3", "zarr sharded"}]
    return {kind: write(tmp_path_factory.mktemp("store"), kind) for kind in kinds}


def never(data):
    assert (data > 0).all()


def backed(matrix, genes=None, renamed=None, check=never):
    """What reads the matrix from the file, however small it is."""
    with pytest.MonkeyPatch.context() as patch:
        set_buffer(patch, 0)
        found = read_stored(stored_rows(matrix, "adata.X"), Genes(genes, renamed), check)
    assert isinstance(found, BackedCounts)
    return found


def dense(rows, n_genes):
    return sparse.csr_array((rows.data, rows.indices, rows.indptr), shape=(rows.n_cells, n_genes)).toarray()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15)
@given(drawn=st.data())
def test_rows_and_genes_are_those_of_scipy(kind, stores, drawn):
    if kind not in stores:
        pytest.skip("zarr 2 has no format 3")
    genes = drawn.draw(st.none() | st.lists(st.integers(0, N_GENES - 1), unique=True, min_size=1).map(np.array))
    source = backed(stores[kind], genes)
    expected = COUNTS.toarray() if genes is None else COUNTS.toarray()[:, genes]
    n_genes = expected.shape[1]
    assert (source.n_cells, source.n_entries) == (N_CELLS, (expected > 0).sum())
    assert np.array_equal(source.indptr, np.r_[0, np.cumsum((expected > 0).sum(1))])
    assert np.array_equal(source.totals, expected.sum(1))
    rows = drawn.draw(st.lists(st.integers(0, N_CELLS - 1), max_size=40).map(lambda r: np.array(r, np.int64)))
    start = drawn.draw(st.integers(0, N_CELLS))
    stop = drawn.draw(st.integers(start, N_CELLS))
    for got, wanted in ((source.take(rows), expected[rows]), (source.rows(start, stop), expected[start:stop])):
        assert [a.dtype for a in got] == [np.int64, np.int32, np.float32]
        assert np.array_equal(dense(got, n_genes), wanted)
        csr = sparse.csr_array((got.data, got.indices, got.indptr), shape=wanted.shape)
        assert csr.has_canonical_format
        assert (got.data > 0).all()


@pytest.mark.parametrize("rows", [[-1], [N_CELLS], [0, N_CELLS, 1]])
def test_a_row_that_is_not_there(rows, stores):
    with pytest.raises(IndexError, match="0 to 299"):
        backed(stores["h5ad"]).take(np.array(rows))


def test_reads_of_little_memory_give_the_same(stores, monkeypatch):
    whole = backed(stores["h5ad"]).rows(0, N_CELLS)
    monkeypatch.setattr("scanpy_scvi.store.stored_rows.MOST_AT_ONCE", 500)
    monkeypatch.setattr("scanpy_scvi.store.backed_counts.NEAR", 2)
    for kind, matrix in stores.items():
        source = backed(matrix)
        assert all(map(np.array_equal, source.rows(0, N_CELLS), whole)), kind
        rows = np.array([299, 0, 7, 8, 120, 7])
        assert all(map(np.array_equal, source.take(rows), whole.take(rows))), kind


def test_genes_that_a_file_lacks_have_no_counts(stores):
    positions = np.array([-1, 5, -1, 2])
    adata = SimpleNamespace(n_vars=N_GENES)
    with pytest.MonkeyPatch.context() as patch:
        set_buffer(patch, 0)
        far = read_counts(adata, stores["h5ad"], None, positions)
    near = read_counts(adata, COUNTS, None, positions)
    assert not far.in_memory
    assert near.in_memory
    assert all(map(np.array_equal, far.rows(0, N_CELLS), near))
    assert np.array_equal(dense(near, 4)[:, [1, 3]], COUNTS.toarray()[:, [5, 2]])


def test_counts_that_fit_into_a_buffer_are_read_into_it(stores, monkeypatch):
    adata = SimpleNamespace(n_vars=N_GENES)
    every = np.arange(N_GENES)
    size = 8 * (COUNTS.nnz + N_CELLS)
    set_buffer(monkeypatch, size)
    assert read_counts(adata, stores["h5ad"], None, every).in_memory
    set_buffer(monkeypatch, size - 1)
    assert not read_counts(adata, stores["h5ad"], None, every).in_memory
    assert read_counts(adata, stores["h5ad"], None, every[:-1]).in_memory  # what is not modelled does not count


def test_untidy_rows_are_tidied(tmp_path):
    untidy = sparse.csr_matrix(
        (np.array([200, 0, 100, 3, 4], np.uint8), np.array([4, 2, 4, 9, 2]), np.array([0, 3, 5])), shape=(2, 10)
    )
    for kind in ("h5ad", "zarr 2"):
        rows = backed(write(tmp_path, kind, untidy)).rows(0, 2)
        assert rows.indptr.tolist() == [0, 1, 3]
        assert rows.indices.tolist() == [4, 2, 9]
        assert rows.data.tolist() == [300, 4, 3]


def test_values_are_checked_as_they_are_stored(tmp_path):
    x = COUNTS.astype(np.float64)
    x.data[-1] += 1e-9  # a whole number in float32

    def check(data):
        if (data != np.rint(data)).any():
            raise ValueError("non-integer")

    with pytest.raises(ValueError, match="non-integer"):
        backed(write(tmp_path, "h5ad", x), check=check)


def test_a_large_matrix_by_genes_is_refused_with_what_to_do(tmp_path, monkeypatch):
    group = zarr.open_group(str(tmp_path / "x.zarr"), mode="w", **({"zarr_format": 2} if ZARR_V3 else {}))
    ad.io.write_elem(group, "X", sparse.csc_matrix(COUNTS))
    matrix = ad.io.sparse_dataset(group["X"])
    found = read_counts(SimpleNamespace(n_vars=N_GENES), matrix, None, np.arange(N_GENES))
    assert np.array_equal(dense(found, N_GENES), COUNTS.toarray())
    monkeypatch.setattr("scanpy_scvi.store.stored_rows.SMALL_CSC", 100)
    with pytest.raises(ValueError, match=r"`adata.X` lies in a file by genes.*tocsr"):
        stored_rows(matrix, "adata.X")


DAMAGE = {
    "an index too large": ("indices", 7, N_GENES, "column 40 at position 7.*columns 0 to 39"),
    "a negative index": ("indices", 7, -3, "column -3 at position 7"),
    "starts that fall": ("indptr", 100, 0, "indptr of .* falls from .* to 0 at cell 99"),
    "a first start": ("indptr", 0, 1, "indptr of .* begins with 1"),
    "a last end": ("indptr", N_CELLS, 10**6, "its last row ends at 1000000"),
}


@pytest.mark.parametrize("case", DAMAGE)
@pytest.mark.parametrize("kind", ["h5ad", "zarr 2"])
def test_what_makes_no_sense_is_named(case, kind, tmp_path):
    array, at, value, words = DAMAGE[case]
    write(tmp_path, kind)
    where = tmp_path / ("x.h5ad" if kind == "h5ad" else "x.zarr")
    with h5py.File(where, "r+") if kind == "h5ad" else nullcontext(zarr.open_group(str(where), mode="r+")) as file:
        file["X"][array][at] = value
    again = h5py.File(where)["X"] if kind == "h5ad" else zarr.open_group(str(where), mode="r")["X"]
    with pytest.raises(ValueError, match=words) as error:
        backed(ad.io.sparse_dataset(again), check=lambda _: None)
    assert where.name in str(error.value)
    assert "damaged" in str(error.value)


def test_values_without_columns(tmp_path):
    write(tmp_path, "h5ad")
    with h5py.File(tmp_path / "x.h5ad", "r+") as file:
        indices = file["X/indices"][:-3]
        del file["X/indices"]
        file["X/indices"] = indices
    with pytest.raises(ValueError, match=rf"{COUNTS.nnz} values and {COUNTS.nnz - 3} columns"):
        backed(ad.io.sparse_dataset(h5py.File(tmp_path / "x.h5ad")["X"]))


def test_a_chunk_that_cannot_be_decoded_is_named(tmp_path):
    write(tmp_path, "h5ad gzip")
    with h5py.File(tmp_path / "x.h5ad") as file:
        place = file["X/data"].id.get_chunk_info(3)
    with open(tmp_path / "x.h5ad", "r+b") as file:
        file.seek(place.byte_offset + 10)
        file.write(bytes(place.size - 10))
    matrix = ad.io.sparse_dataset(h5py.File(tmp_path / "x.h5ad")["X"])
    with pytest.raises(ValueError, match=r"/X/data of .*x.h5ad.* cannot be read from position .* damaged"):
        backed(matrix)


def chunks_of(path, array):
    return sorted(p for p in (path / "x.zarr" / "X" / array).rglob("*") if p.is_file() and "zarr" not in p.name[:5])


def metadata(path):
    return {".zarray", ".zattrs", ".zgroup", "zarr.json"} & {path.name}


@pytest.mark.parametrize("kind", ["zarr 2", "zarr 3", "zarr sharded"])
def test_a_chunk_of_zarr_that_is_cut_off_or_missing_is_named(kind, tmp_path):
    if not ZARR_V3 and kind != "zarr 2":
        pytest.skip("zarr 2 has no format 3")
    write(tmp_path, kind)
    chunk = [p for p in chunks_of(tmp_path, "data") if not metadata(p)][1]
    content = chunk.read_bytes()
    open_ = lambda: ad.io.sparse_dataset(zarr.open_group(str(tmp_path / "x.zarr"), mode="r")["X"])  # noqa: E731
    chunk.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"X/data of .*x.zarr.* cannot be read from position .* damaged"):
        backed(open_())
    chunk.unlink()
    with pytest.raises(ValueError, match=r"X/data of .*x.zarr.* lacks \d+ of \d+ chunks"):
        backed(open_())


@pytest.mark.parametrize("kind", ["zarr 2", "zarr dense"])
def test_a_file_that_changes_is_noticed(kind, tmp_path):
    source = backed(write(tmp_path, kind))
    before = source.rows(0, N_CELLS)
    other = COUNTS.copy()
    other.data[other.indptr[123]] += 1
    (tmp_path / "other").mkdir()
    write(tmp_path / "other", kind, other)
    shutil.copytree(tmp_path / "other" / "x.zarr", tmp_path / "x.zarr", dirs_exist_ok=True)
    assert all(map(np.array_equal, source.rows(0, 123), before.rows(0, 123)))
    with pytest.raises(ValueError, match=r"cell number 123 in /X of .*x.zarr.*changed meanwhile"):
        source.take(np.array([130, 123]))


def test_a_file_that_is_cut_off_while_it_is_read(tmp_path):
    rng = np.random.default_rng(0)
    x = sparse.csr_matrix(rng.integers(1, 9, (4000, 500)).astype(np.float32))  # larger than what HDF5 keeps
    source = backed(write(tmp_path, "h5ad", x))
    with open(tmp_path / "x.h5ad", "r+b") as file:
        file.truncate(1_000_000)
    with pytest.raises(ValueError, match=r"x\.h5ad"):
        source.rows(0, 4000)


def test_no_warning_is_left_behind(stores):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for matrix in stores.values():
            backed(matrix).take(np.array([3, 1]))
