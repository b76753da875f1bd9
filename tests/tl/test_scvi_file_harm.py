"""`tl.scvi` of a file: nothing that goes wrong harms it."""

import gc
import os
import signal
import subprocess
import sys

import anndata as ad
import h5py
import numpy as np
import pytest
from files import FORMATS, OPTIONS, contents, no_file_larger_than, read, write

import scanpy_scvi as sv
from scanpy_scvi import _replace
from scanpy_scvi.store import draft as module
from scanpy_scvi.training import checkpoint
from scanpy_scvi.training.fit import _Fit

zarr = pytest.importorskip("zarr")

pytestmark = [  # anndata 0.12 on its own defaults
    pytest.mark.filterwarnings("ignore:Writing zarr v2 data will no longer be the default"),
    pytest.mark.filterwarnings("ignore:zarr v3 autosharding will be the default"),
]


def _fail(*_, **__):
    raise OSError(28, "the disk is full")


def test_checkpoints_go_with_files(adata, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    monkeypatch.setattr(checkpoint, "REST", 0.0)
    path, folder = write(adata, tmp_path / "a.h5ad"), tmp_path / "checkpoints"
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_elem", _fail)
        with pytest.raises(OSError, match="full"):
            sv.tl.scvi(path, "batch", checkpoint=folder, **OPTIONS)
    assert [p.name for p in folder.iterdir()] == ["fit-1.npz"]  # the result was not safe yet
    steps, step = [], _Fit._step
    monkeypatch.setattr(_Fit, "_step", lambda self, *args: steps.append(None) or step(self, *args))
    sv.tl.scvi(path, "batch", checkpoint=folder, **OPTIONS)
    assert steps == []
    assert list(folder.iterdir()) == []
    sv.tl.scvi(adata, "batch", **OPTIONS)
    assert np.array_equal(read(path).obsm["X_scvi"], adata.obsm["X_scvi"])


# ---- faults


SCRIPT = """
import os, signal, sys
import scanpy_scvi as sv
from scanpy_scvi import _replace
from scanpy_scvi.store import draft

owner, name, call = eval(sys.argv[2])
original, calls = getattr(owner, name), []

def dying(*args, **kwargs):
    calls.append(None)
    if len(calls) == call:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kwargs)

setattr(owner, name, dying)
sv.tl.scvi(sys.argv[1], "batch", **eval(sys.argv[3]))
"""


@pytest.mark.parametrize(
    ("suffix", "where"),
    [(".h5ad", "(draft, 'write_elem', 3)"), (".h5ad", "(_replace, 'sync', 1)"), (".zarr", "(draft, 'write_elem', 4)")],
)
def test_sigkill_in_the_write_leaves_the_file(suffix, where, adata, tmp_path):
    path = write(adata, tmp_path / f"a{suffix}")
    before = contents(tmp_path)
    words = [path, where, OPTIONS]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *map(str, words)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    after = contents(tmp_path)
    assert {name: digest for name, digest in after.items() if ".part" not in name} == before
    assert len(after) > len(before)  # or it was killed too early to prove anything
    sv.tl.scvi(path, "batch", **OPTIONS)
    sv.tl.scvi(adata, "batch", **OPTIONS)
    assert np.array_equal(read(path).obsm["X_scvi"], adata.obsm["X_scvi"])
    assert [p.name for p in tmp_path.iterdir()] == [f"a{suffix}"]


def test_sigkill_while_folders_are_exchanged(adata, tmp_path, monkeypatch):
    path = write(adata, tmp_path / "a.zarr")
    before = contents(path)
    rename = type(path).rename

    def killed(self, target):
        if self.suffix == ".part":
            raise SystemExit
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(path), "rename", killed)
        with pytest.raises(SystemExit):
            sv.tl.scvi(path, "batch", **OPTIONS)
    aside = tmp_path / "a.zarr.before"
    assert contents(aside) == before
    with pytest.raises(FileNotFoundError, match=r"a\.zarr does not exist, but .*a\.zarr\.before does.*Rename it back"):
        sv.tl.scvi(path, "batch", **OPTIONS)
    aside.rename(path)
    sv.tl.scvi(path, "batch", **OPTIONS)
    assert "X_scvi" in read(path).obsm


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize(
    ("suffix", "limit"), [(".h5ad", 30_000), (".h5ad", 200_000), (".zarr", 3_000), (".zarr", 15_000)]
)
def test_a_full_disk_leaves_the_file(suffix, limit, normalized, adata, tmp_path):
    path = write(adata, tmp_path / f"a{suffix}")
    before = contents(tmp_path)
    with (
        no_file_larger_than(limit),
        pytest.raises(OSError, match=rf"a\{suffix} could not be written, and is as it was: .*Make room"),
    ):
        sv.tl.scvi(path, "batch", normalized=normalized, **OPTIONS)
    gc.collect()
    assert contents(tmp_path) == before
    assert os.listdir(tmp_path) == [path.name]
    sv.tl.scvi(path, "batch", **OPTIONS)  # torch's state is free again
    assert "X_scvi" in read(path).obsm


def test_too_little_room_is_said_before_the_fit(adata, tmp_path, monkeypatch):
    path = write(adata, tmp_path / "a.h5ad")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    monkeypatch.setattr(_Fit, "_step", _fail)
    with pytest.raises(OSError, match=r"a\.h5ad cannot be written: the new file takes more than .* GB are free there"):
        sv.tl.scvi(path, "batch", **OPTIONS)


def test_room_is_looked_for_where_a_link_leads(adata, tmp_path, monkeypatch):
    path, near, far = write(adata, tmp_path / "a.h5ad"), tmp_path / "near", tmp_path / "far"
    for folder in (near, far):
        folder.mkdir()
    (near / "b.h5ad").symlink_to(far / "b.h5ad")
    monkeypatch.setattr(
        module.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000 if "far" in str(folder) else 10**9})
    )
    with pytest.raises(OSError, match=r"b\.h5ad cannot be written: the new file takes"):
        sv.tl.scvi(path, "batch", out=near / "b.h5ad", **OPTIONS)
    (near / "c.h5ad").symlink_to(tmp_path / "gone" / "c.h5ad")
    with pytest.raises(FileNotFoundError, match=r"c\.h5ad cannot be written: the folder .*gone does not exist"):
        sv.tl.scvi(path, "batch", out=near / "c.h5ad", **OPTIONS)


def test_room_for_what_will_be_compressed_is_not_asked_for(adata, tmp_path, monkeypatch):
    path, out = write(adata, tmp_path / "a.h5ad"), tmp_path / "b.zarr"
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": path.stat().st_size - 1}))
    sv.tl.scvi(path, "batch", out=out, normalized=False, **OPTIONS)
    size = sum(p.stat().st_size for p in (out / "X").rglob("*") if p.is_file())
    assert size < adata.X.data.nbytes  # beside which there are indices


@pytest.mark.parametrize("name", ["store", "store.zarr"])
def test_a_link_to_a_folder_of_any_name_is_written(name, adata, tmp_path):
    (write(adata, tmp_path / "a.zarr")).rename(tmp_path / name)
    link = tmp_path / "link.zarr"
    link.symlink_to(tmp_path / name)
    sv.tl.scvi(link, "batch", **OPTIONS)
    assert link.is_symlink()
    assert "X_scvi" in read(link).obsm


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_advice_is_that_of_the_object(suffix, adata, tmp_path):
    adata.raw = adata
    adata.X = adata.X / 3
    path = write(adata, tmp_path / f"a{suffix}")
    with pytest.raises(ValueError, match="non-integer") as in_memory:
        sv.tl.scvi(adata, "batch", **OPTIONS)
    with pytest.raises(ValueError, match="non-integer") as in_file:
        sv.tl.scvi(path, "batch", **OPTIONS)
    assert str(in_file.value) == str(in_memory.value)
    assert "`adata.raw.X` looks like counts" in str(in_file.value)


def test_an_error_in_the_fit_leaves_the_file(adata, tmp_path):
    path = write(adata, tmp_path / "a.h5ad")
    before = contents(tmp_path)
    with pytest.raises(KeyError, match="bach"):
        sv.tl.scvi(path, "bach", **OPTIONS)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_that_changes_meanwhile_is_left(suffix, adata, tmp_path, monkeypatch):
    path = write(adata, tmp_path / f"a{suffix}")
    inner = path if path.is_file() else next(p for p in path.rglob("*") if p.is_file())
    finish = module.Draft.finish

    def while_another_writes(self):
        finish(self)
        os.utime(inner, ns=(1, inner.stat().st_mtime_ns + 10**12))

    monkeypatch.setattr(module.Draft, "finish", while_another_writes)
    with pytest.raises(ValueError, match="was changed while it was in use, so nothing was written"):
        sv.tl.scvi(path, "batch", **OPTIONS)
    assert "X_scvi" not in read(path).obsm
    assert os.listdir(tmp_path) == [path.name]


# ---- what is refused


def test_wrong_paths_and_options_are_refused(adata, tmp_path):
    path = write(adata, tmp_path / "a.h5ad")
    cases = [
        (lambda: sv.tl.scvi(adata, out=path), ValueError, "`adata` is an object and not the path"),
        (lambda: sv.tl.scvi(path, copy=True), ValueError, "Pass the path of the new file as `out`"),
        (lambda: sv.tl.scvi(tmp_path / "no.h5ad"), FileNotFoundError, r"no\.h5ad does not exist"),
        (lambda: sv.tl.scvi(tmp_path / "a.csv"), ValueError, r"ends in \.csv, \.h5ad or \.zarr was expected"),
        (lambda: sv.tl.scvi(path, out="b.loom"), ValueError, r"ends in \.loom, \.h5ad or \.zarr was expected"),
        (lambda: sv.tl.scvi(path, out=tmp_path / "x" / "b.h5ad"), FileNotFoundError, "does not exist. Make it first"),
    ]
    before = contents(tmp_path)
    for call, error, message in cases:
        with pytest.raises(error, match=message):
            call()
    assert contents(tmp_path) == before


def test_a_damaged_file_is_refused(adata, tmp_path):
    path = write(adata, tmp_path / "a.h5ad")
    path.write_bytes(path.read_bytes()[:5000])
    before = contents(tmp_path)
    with pytest.raises(OSError, match=r"a\.h5ad cannot be read.*complete\?"):
        sv.tl.scvi(path, **OPTIONS)
    with h5py.File(tmp_path / "b.h5ad", "w") as file:
        file["obs"] = np.arange(3)
    with pytest.raises(ValueError, match=r"b\.h5ad has no 'obs', 'var' as anndata"):
        sv.tl.scvi(tmp_path / "b.h5ad", **OPTIONS)
    assert contents(tmp_path).items() >= before.items()


def test_a_new_file_takes_its_name_at_once(tmp_path):
    part, path = tmp_path / "a.part", tmp_path / "a"
    part.write_text("new")
    path.write_text("old")
    _replace.replace(part, path)
    assert path.read_text() == "new"
    for name, text in (("part", "new"), ("whole", "old")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "inner").write_text(text)
    _replace.replace(tmp_path / "part", tmp_path / "whole")
    assert (tmp_path / "whole" / "inner").read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "whole"]


def test_references_in_a_file_are_refused_and_stay(adata, tmp_path):
    """As anndata 0.7 has them, from a column of codes to its categories."""
    path = write(adata, tmp_path / "a.h5ad")
    with h5py.File(path, "r+") as file:
        names = file["obs"].create_dataset("__categories/kind", data=["a", "b"])
        codes = file["obs"].create_dataset("kind", data=np.zeros(adata.n_obs, np.int8))
        codes.attrs["categories"] = names.ref
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"references between its parts \('obs/kind'\).*write it again"):
        sv.tl.scvi(path, "batch", **OPTIONS)
    assert contents(tmp_path) == before


def test_what_is_in_a_zarr_and_not_in_its_list_is_kept(adata, tmp_path):
    path = write(adata, tmp_path / "a.zarr")
    inner = zarr.open_group(path / "obsm", mode="r+")  # which does not add it to the list at the root
    ad.io.write_elem(inner, "X_mine", np.ones((adata.n_obs, 2)))
    sv.tl.scvi(path, "batch", **OPTIONS)
    assert read(path).obsm["X_mine"].sum() == 2 * adata.n_obs
    assert "X_scvi" in read(path).obsm


@pytest.mark.filterwarnings("ignore:Object at README.txt")  # zarr's own word of it
def test_strangers_in_the_folder_of_a_zarr_are_refused_in_place_and_stay(adata, tmp_path):
    path = write(adata, tmp_path / "a.zarr")
    (path / "obsm" / "README.txt").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"no part of the Zarr group \('obsm/README.txt'\)"):
        sv.tl.scvi(path, "batch", **OPTIONS)
    assert contents(tmp_path) == before
    sv.tl.scvi(path, "batch", out=tmp_path / "b.zarr", **OPTIONS)
    assert (path / "obsm" / "README.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["notes.zarr", "notes.h5ad"])
def test_a_folder_of_something_else_is_not_replaced(name, adata, tmp_path):
    path = write(adata, tmp_path / "a.h5ad")
    (tmp_path / name).mkdir()
    (tmp_path / name / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="a folder that is no Zarr group"):
        sv.tl.scvi(path, "batch", out=tmp_path / name, **OPTIONS)
    assert (tmp_path / name / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("suffix", FORMATS)
def test_of_two_calls_in_place_the_second_to_end_says_that_nothing_was_written(suffix, adata, tmp_path, monkeypatch):
    path = write(adata, tmp_path / f"a{suffix}")
    first = module.draft_of(path, path)
    first.__enter__().adata.obsm["X_first"] = np.ones((adata.n_obs, 2), np.float32)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 1)  # another process, which is alive
        sv.tl.scvi(path, "batch", **OPTIONS)
    with pytest.raises(ValueError, match="was changed while it was in use"):
        first.__exit__(None, None, None)
    assert "X_scvi" in read(path).obsm
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "call", [lambda path: sv.tl.dca(path, max_epochs=1), sv.pp.check, sv.tl.normalized_expression, sv.tl.trust]
)
def test_other_functions_take_no_path(call, adata, tmp_path):
    path = write(adata, tmp_path / "a.h5ad")
    before = contents(tmp_path)
    with pytest.raises(TypeError, match=r"`tl\.scvi` alone takes"):
        call(path)
    assert contents(tmp_path) == before


def test_a_copy_of_what_stays_in_a_file_is_refused(adata, tmp_path):
    backed = ad.read_h5ad(write(adata, tmp_path / "a.h5ad"), backed="r")
    with pytest.raises(ValueError, match="as `out`"):
        sv.tl.scvi(backed, "batch", copy=True, **OPTIONS)
    backed.file.close()
