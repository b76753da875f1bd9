"""Opening a reference by its path: only what is needed, and nothing that the file should not have."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
import warnings

import anndata as ad
import h5py
import numpy as np
import pytest
from fingerprint import fingerprint
from scipy import sparse

import scanpy_scvi as sv
from scanpy_scvi.store import load
from scanpy_scvi.store.identity import space_id
from scanpy_scvi.store.reference import as_reference

SUFFIXES = ("h5ad", "v2.zarr", "v3.zarr")
every_format = pytest.mark.parametrize("suffix", SUFFIXES)


@pytest.fixture(scope="module")
def fitted() -> ad.AnnData:
    """A fit with what people keep beside it."""
    adata = sv.datasets.simulate(n_cells=60, n_genes=30, density=0.5)
    adata.obs["note"] = np.array([f"ü {i}" for i in range(60)], object)
    adata.obsm["X_umap"] = np.random.default_rng(0).normal(size=(60, 2))
    adata.obsm["sparse"] = sparse.random(60, 5, 0.3, format="csr", random_state=0)
    adata.uns["label_colors"] = np.array(["#000000", "#111111", "#222222"], object)
    adata.layers["counts"] = adata.X.copy()
    adata.raw = adata
    sv.tl.scvi(adata, "batch", groupby="label", n_hidden=8, n_latent=2, max_epochs=2, progress=False)
    return adata


@pytest.fixture(scope="module")
def written(fitted, tmp_path_factory):
    """Where it lies, in every format; written once."""
    folder = tmp_path_factory.mktemp("written")
    for suffix in SUFFIXES:
        path = folder / f"fit.{suffix}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # anndata's plans for zarr
            if suffix == "h5ad":
                fitted.write_h5ad(path)
            else:
                with ad.settings.override(zarr_write_format=int(suffix[1])):
                    fitted.write_zarr(path)
    return folder


@pytest.fixture
def write(written, tmp_path):
    """Copy it to a folder of the test's own."""

    def copy(suffix):
        source, path = written / f"fit.{suffix}", tmp_path / f"fit.{suffix}"
        (shutil.copy if source.is_file() else shutil.copytree)(source, path)
        return path

    return copy


def content(found):
    """What a slot has, whatever the order."""
    return {name: content(found[name]) if isinstance(found[name], dict) else fingerprint(found[name]) for name in found}


@every_format
def test_what_is_read_and_what_is_not(suffix, fitted, write):
    path = write(suffix)
    found = as_reference(path)
    whole = (ad.read_h5ad if suffix == "h5ad" else ad.read_zarr)(path)
    assert found.X is None
    assert found.raw is None
    assert not found.layers
    assert not found.varm
    assert found.var_names.equals(whole.var_names)
    assert not len(found.var.columns)
    ranking, expected = (adata.uns.pop("rank_genes_groups_scvi") for adata in (found, whole))
    assert ranking["names"].tolist() == expected["names"].tolist()
    for slot in ("obs", "obsm", "uns"):
        assert content(getattr(found, slot)) == content(getattr(whole, slot))
    assert space_id(found, "scvi") == space_id(fitted, "scvi")
    for name, tensor in load(found, "scvi").model.state_dict().items():
        np.testing.assert_array_equal(tensor, fitted.uns["scvi"]["state"][name])
    assert as_reference(str(path)).obs_names.equals(fitted.obs_names)


def test_an_object_is_returned_as_it_is(fitted):
    assert as_reference(fitted) is fitted


def refused(path, words, error=ValueError):
    start = time.perf_counter()
    with pytest.raises(error, match=words) as caught:
        as_reference(path)
    assert time.perf_counter() - start < 3
    assert len(str(caught.value)) < 1000


def test_what_is_no_file_of_ours(tmp_path):
    refused(3, "type int", TypeError)
    refused(tmp_path / "none.h5ad", "There is no file.*none.h5ad", FileNotFoundError)
    refused(tmp_path / "fit.csv", r"ends in '\.csv'.*'\.h5ad' or '\.zarr'")
    (tmp_path / "text.h5ad").write_text("not HDF5")
    refused(tmp_path / "text.h5ad", r"text\.h5ad.*cannot be read")
    (tmp_path / "empty.h5ad").touch()
    refused(tmp_path / "empty.h5ad", r"empty\.h5ad.*cannot be read")
    (tmp_path / "folder.h5ad").mkdir()
    refused(tmp_path / "folder.h5ad", r"folder\.h5ad.*cannot be read")
    (tmp_path / "folder.zarr").mkdir()
    refused(tmp_path / "folder.zarr", r"folder\.zarr.*cannot be read")
    (tmp_path / "file.zarr").write_text("x")
    refused(tmp_path / "file.zarr", r"file\.zarr.*cannot be read")
    with h5py.File(tmp_path / "other.h5ad", "w") as file:
        file["obs"] = np.ones(3)
    refused(tmp_path / "other.h5ad", r"no AnnData.*'var', 'uns'")


def test_a_torn_file(write, tmp_path):
    content = write("h5ad").read_bytes()
    torn = tmp_path / "torn.h5ad"
    for share in (0.1, 0.5, 0.9, 0.999):
        torn.write_bytes(content[: int(share * len(content))])
        refused(torn, r"torn\.h5ad.*cannot be read")


@pytest.mark.parametrize("seed", range(20))
def test_a_file_with_wrong_bytes(seed, write):
    """It is read or refused; HDF5 itself sees the damage, or not."""
    path = write("h5ad")
    content, rng = bytearray(path.read_bytes()), np.random.default_rng(seed)
    for position in rng.integers(0, len(content), 40):
        content[position] = rng.integers(256)
    path.write_bytes(content)
    code = "import sys; from scanpy_scvi.store.reference import as_reference\ntry: as_reference(sys.argv[1])"
    code += "\nexcept ValueError: pass"
    if seed:  # in this process; a crash of the reader would end it, as it would the first
        try:
            as_reference(path)
        except ValueError:
            return
    else:
        subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(path)], check=True, timeout=60)


# HDF5


def external_link(file):
    del file["obsm/X_scvi"]
    file["obsm/X_scvi"] = h5py.ExternalLink("/etc/hostname", "/")


def soft_link(file):
    del file["obsm/X_scvi"]
    file["obsm/X_scvi"] = h5py.SoftLink("/layers/counts")


def linked_group(file):
    del file["uns/scvi/state"]
    file["uns/scvi/state"] = h5py.SoftLink("/layers")


def linked_var(file):
    file.move("var", "other")
    file["var"] = h5py.SoftLink("/other")


def external_data(file):
    del file["obsm/X_scvi"]
    space, plist = h5py.h5s.create_simple((60, 2)), h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_external(b"/etc/passwd", 0, 480)
    h5py.h5d.create(file["obsm"].id, b"X_scvi", h5py.h5t.NATIVE_FLOAT, space, plist)


def virtual(file):
    del file["obsm/X_scvi"]
    layout = h5py.VirtualLayout((60, 2), "f4")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "x", shape=(60, 2))
    file["obsm"].create_virtual_dataset("X_scvi", layout)


def claim(path, shape, **options):
    def spoil(file):
        del file[path]
        file.create_dataset(path, shape, "f4", **options)

    return spoil


def many_claims(file):
    for i in range(40):
        file.create_dataset(f"uns/{i}", (2**23,), "f4", chunks=True)  # 32 MB each


def a_cycle(file):
    file["uns/scvi/again"] = file["uns"]


def deep(file):
    file.create_group("uns/" + "/".join(["x"] * 60))


def a_column_elsewhere(file):
    file["obs"].attrs["column-order"] = ["/layers/counts"]


def an_index_elsewhere(file):
    file["var"].attrs["_index"] = "../obs/_index"


def references(file):
    kind = h5py.ref_dtype
    file.create_dataset("uns/reference", (1,), kind)[0] = file["layers"].ref


def named_type(file):
    file["uns/kind"] = np.dtype("f8")


def pickled(file):
    """An opaque blob stays one; nobody unpickles it."""
    file["uns/blob"] = np.void(pickle.dumps(print))


HDF5 = {
    "external link": (external_link, "X_scvi.*link.*not followed"),
    "soft link": (soft_link, "X_scvi.*link.*not followed"),
    "linked group": (linked_group, "state.*link.*not followed"),
    "linked table": (linked_var, "var.*link.*not followed"),
    "external data": (external_data, "X_scvi.*another file"),
    "virtual data": (virtual, "X_scvi.*another file"),
    "a trillion numbers": (
        claim("obsm/X_scvi", (10**6, 10**6), chunks=True),
        "X_scvi.*claims 4,0.*0 are stored|X_scvi.*claims",
    ),
    "a trillion weights": (claim("uns/scvi/state/decoder.logits.weight", (10**12,), chunks=True), "logits.*claims"),
    "unbelievable": (claim("uns/scvi/seed", (2**31, 2**31), chunks=(1, 1)), "seed.*exabyte|seed.*claims"),
    "many claims": (many_claims, "claims"),
    "a cycle": (a_cycle, "linked twice|uns"),
    "deep nesting": (deep, "more than 32 groups"),
    "a column elsewhere": (a_column_elsewhere, "obs.*lies outside"),
    "an index elsewhere": (an_index_elsewhere, "var.*lies outside"),
    "references": (references, "reference"),
    "a named type": (named_type, "kind.*neither"),
    "a pickle": (pickled, "cannot be read"),
}


@pytest.mark.parametrize("name", HDF5)
def test_hdf5_that_lies(name, write):
    spoil, words = HDF5[name]
    path = write("h5ad")
    with h5py.File(path, "r+") as file:
        spoil(file)
    refused(path, words)


def test_many_references_to_one_long_string(write):
    """Four gigabytes of text in a file of a megabyte."""
    path = write("h5ad")
    with h5py.File(path, "r+") as file:
        texts = file.create_dataset("uns/texts", data=["x" * 2**20] + ["y"] * 4095, dtype=h5py.string_dtype())
        file.flush()
        offset = texts.id.get_offset()
    content = bytearray(path.read_bytes())
    content[offset : offset + 16 * 4096] = content[offset : offset + 16] * 4096
    path.write_bytes(content)
    with h5py.File(path) as file:
        assert len(file["uns/texts"][4095]) == 2**20
    refused(path, "texts.*strings longer than the file")


def test_a_column_with_a_slash(fitted, tmp_path):
    """Some anndata write it as a group within the table."""
    adata = fitted.copy()
    adata.obs["CD4+/CD8"] = np.arange(60) / 7
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.write_h5ad(tmp_path / "fit.h5ad")
    assert as_reference(tmp_path / "fit.h5ad").obs["CD4+/CD8"].iloc[7] == 1


def test_counts_are_not_read(write):
    """Not even looked at: here they are no matrix at all."""
    path = write("h5ad")
    with h5py.File(path, "r+") as file:
        del file["X"], file["layers/counts"]
        file.create_dataset("X", (10**9, 10**6), "f4", chunks=True)
        file["layers/counts"] = h5py.SoftLink("/nowhere")
    assert as_reference(path).n_obs == 60


# Zarr

WRITES = "import os\nos.mkdir({!r})"


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def edit(name, **changes):
    def spoil(path):
        file = path / name
        content = json.loads(file.read_text())
        file.write_text(json.dumps({**content, **changes}))

    return spoil


def text(name, content):
    return lambda path: (path / name).write_text(content)


def link(name, target):
    def spoil(path):
        here = path / name
        shutil.rmtree(here) if here.is_dir() else here.unlink()
        here.symlink_to(target)

    return spoil


def unpickles(path):
    edit("obs/note/.zarray", filters=[{"id": "pickle"}], compressor=None, dtype="|O")(path)
    (path / "obs/note/0").write_bytes(pickle.dumps(Bomb(path.parent / "written")))


def unpickles_v3(path):
    codecs = [{"name": "numcodecs.pickle", "configuration": {}}]
    edit("obs/note/zarr.json", codecs=codecs)(path)
    (path / "obs/note/c/0").write_bytes(pickle.dumps(Bomb(path.parent / "written")))


SHARDED = [
    {"name": "sharding_indexed", "configuration": {"codecs": [{"name": "numcodecs.pickle"}], "chunk_shape": [6]}}
]
LATENT = "obsm/X_scvi"
ZARR = {
    "unpickles": ("v2", unpickles, "note.*'pickle'.*run code"),
    "unpickles, version 3": ("v3", unpickles_v3, "note.*'numcodecs.pickle'.*run code"),
    "unpickles in shards": ("v3", edit("obs/note/zarr.json", codecs=SHARDED), "note.*'numcodecs.pickle'"),
    "a compressor of its own": ("v2", edit(f"{LATENT}/.zarray", compressor={"id": "evil"}), "X_scvi.*'evil'"),
    "a codec that is a number": ("v3", edit(f"{LATENT}/zarr.json", codecs=[7]), "X_scvi.*'7'"),
    "a trillion numbers": ("v2", edit(f"{LATENT}/.zarray", shape=[10**12, 2]), "X_scvi.*claims"),
    "a trillion numbers, version 3": ("v3", edit(f"{LATENT}/zarr.json", shape=[10**12, 2]), "X_scvi.*claims"),
    "a large chunk": ("v2", edit(f"{LATENT}/.zarray", chunks=[10**12, 2]), "X_scvi.*claims"),
    "large numbers": ("v2", edit(f"{LATENT}/.zarray", dtype="<U9999999"), "X_scvi.*claims"),
    "a negative size": ("v2", edit(f"{LATENT}/.zarray", shape=[-1, 2]), "X_scvi.*negative"),
    "no shape": ("v2", edit(f"{LATENT}/.zarray", shape=None), "X_scvi.*metadata"),
    "an unknown type": ("v2", edit(f"{LATENT}/.zarray", dtype="<evil"), "X_scvi.*metadata"),
    "metadata that are none": ("v2", text(f"{LATENT}/.zarray", "{"), "X_scvi.*metadata"),
    "metadata that are deep": ("v2", text(f"{LATENT}/.zarray", "[" * 100_000), "X_scvi.*metadata"),
    "a linked chunk": ("v2", link(f"{LATENT}/0.0", "/etc/passwd"), "X_scvi.*link"),
    "a linked chunk, version 3": ("v3", link(f"{LATENT}/c/0/0", "/etc/passwd"), "X_scvi.*link"),
    "a linked array": ("v2", link(LATENT, "../layers/counts"), "obsm.*link"),
    "a linked table": ("v2", link("var", "obs"), "link"),
    "a column elsewhere": ("v2", edit("obs/.zattrs", **{"column-order": ["../layers/counts"]}), "obs.*lies outside"),
    "an index elsewhere": ("v3", edit("var/zarr.json", attributes={"_index": "/obs/_index"}), "var.*lies outside"),
    "a file in place of a group": ("v2", lambda path: (path / "uns/x").write_text("x"), "uns/x.*neither"),
    "no table of genes": ("v2", lambda path: shutil.rmtree(path / "var"), "cannot be read"),
}


@pytest.mark.parametrize("name", ZARR)
def test_zarr_that_lies(name, write):
    version, spoil, words = ZARR[name]
    path = write(f"{version}.zarr")
    spoil(path)
    refused(path, words)
    assert not (path.parent / "written").exists()


def test_what_is_looked_at_is_what_is_read(write):
    """Consolidated metadata may tell another story, which nobody listens to."""
    path = write("v2.zarr")
    file = path / ".zmetadata"
    content = json.loads(file.read_text())
    content["metadata"]["obs/note/.zarray"]["filters"] = [{"id": "pickle"}]
    file.write_text(json.dumps(content))
    assert as_reference(path).obs["note"].iloc[0] == "ü 0"
