"""`checkpoint=`: a call that is made again goes on where the one before was killed."""

import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from fingerprint import fingerprint

import scanpy_scvi as sv
from scanpy_scvi._progress import ProgressLine
from scanpy_scvi.training import checkpoint
from scanpy_scvi.training.fit import _Fit

OPTIONS = {"batch_size": 32, "max_epochs": 6, "n_hidden": 16, "n_latent": 3, "progress": False}


class Killed(BaseException):
    """Ends a fit as nothing that it could catch."""


@pytest.fixture(autouse=True)
def _at_every_step(monkeypatch):
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    monkeypatch.setattr(checkpoint, "REST", 0.0)


def kill(monkeypatch, owner, name, call, error=Killed):
    """Raise in the given call of a method."""
    original, calls = getattr(owner, name), []

    def method(self, *args, **kwargs):
        calls.append(None)
        if len(calls) == call:
            raise error
        return original(self, *args, **kwargs)

    monkeypatch.setattr(owner, name, method)


def until_killed(monkeypatch, step, call):
    """Make a call whose fit is killed in a step."""
    with monkeypatch.context() as patch:
        kill(patch, _Fit, "_step", step)
        with pytest.raises(Killed):
            call()


FITS = {
    "scvi": lambda adata, **options: sv.tl.scvi(adata, "batch", penalties=("mmd",), **options),
    "dgd": lambda adata, **options: sv.tl.dgd(adata, "batch", n_components=2, **options),
    "ldvae": lambda adata, **options: sv.tl.ldvae(adata, "batch", **options),
    "scvae": lambda adata, **options: sv.tl.scvae(adata, n_components=(1, 2), **options),
    "svae": lambda adata, **options: svae(adata, **options),
    "scvis": lambda adata, **options: sv.tl.scvis(adata, perplexity=5, **(options | {"n_latent": 2})),
}


def svae(adata, **options):
    """Six epochs of two steps without gates, three with."""
    sv.tl.svae(adata, "perturbation", control="0", **options | {"batch_size": 64})


@pytest.fixture
def adata(adata):
    adata.obs["perturbation"] = [str(i % 5) for i in range(adata.n_obs)]
    return adata


@pytest.mark.parametrize(
    ("name", "step"),
    [("scvi", 7), ("scvi", 22), ("dgd", 10), ("ldvae", 10), ("scvae", 30), ("scvis", 10)]
    + [("svae", step) for step in (4, 15, 17)],
)
def test_resumed_equals_uninterrupted(name, step, adata, tmp_path, monkeypatch):
    expected, call = adata.copy(), FITS[name]
    call(expected, **OPTIONS)
    before = fingerprint(adata)
    until_killed(monkeypatch, step, lambda: call(adata, checkpoint=tmp_path / "checkpoints", **OPTIONS))
    assert fingerprint(adata) == before
    assert list((tmp_path / "checkpoints").iterdir())
    call(adata, checkpoint=tmp_path / "checkpoints", **OPTIONS)
    assert fingerprint(adata) == fingerprint(expected)
    assert list((tmp_path / "checkpoints").iterdir()) == []  # the result is in the object


SCRIPT = """
import os, signal, sys
import anndata as ad
import scanpy_scvi as sv
from scanpy_scvi.training import checkpoint
from scanpy_scvi.training.fit import _Fit

checkpoint.INTERVAL = checkpoint.REST = 0.0
step, steps = _Fit._step, []

def dying(self, *args):
    steps.append(None)
    if len(steps) == 10:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *args)

_Fit._step = dying
sv.tl.scvi(ad.read_h5ad(sys.argv[1]), "batch", checkpoint=sys.argv[2], **eval(sys.argv[3]))
"""


def test_after_sigkill(adata, tmp_path):
    adata.write_h5ad(tmp_path / "in.h5ad")
    words = [tmp_path / "in.h5ad", tmp_path / "checkpoints", OPTIONS]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *map(str, words)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    expected = adata.copy()
    sv.tl.scvi(expected, "batch", **OPTIONS)
    steps, step = [], _Fit._step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Fit, "_step", lambda self, *args: steps.append(None) or step(self, *args))
        sv.tl.scvi(adata, "batch", checkpoint=tmp_path / "checkpoints", **OPTIONS)
    assert len(steps) == 4 * 6 - 9
    assert fingerprint(adata) == fingerprint(expected)


def reverse_batches(adata):
    adata.obs["batch"] = adata.obs["batch"].to_numpy()[::-1]


def reverse_names(adata):
    adata.obs_names = adata.obs_names[::-1]


def reverse_genes(adata):
    adata.var_names = adata.var_names[::-1]


def count_once_more(adata):
    adata.X.data[0] += 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"learning_rate": 0.003}, "`training.learning_rate` is 0.01 there and 0.003 here"),
        ({"random_state": 1}, "`training.random_state` is 0 there and 1 here"),
        ({"n_latent": 4}, "`model.0."),
        ({"mask_var": np.arange(100) < 99}, "`model.0.dims"),
        (count_once_more, "`data.counts` differs"),
        (reverse_batches, "covariates.batch` differs"),
        (reverse_names, "`data.cells` differs"),
        (reverse_genes, "`data.genes` differs"),
    ],
)
def test_other_data_or_options_are_refused(change, told, adata, tmp_path, monkeypatch):
    until_killed(monkeypatch, 7, lambda: sv.tl.scvi(adata, "batch", checkpoint=tmp_path, **OPTIONS))
    options = OPTIONS | (change if isinstance(change, dict) else {})
    if not isinstance(change, dict):
        change(adata)
    before = fingerprint(adata)
    with pytest.raises(ValueError, match="is of another fit") as error:
        sv.tl.scvi(adata, "batch", checkpoint=tmp_path, **options)
    assert told in str(error.value)
    assert fingerprint(adata) == before


@pytest.mark.parametrize("change", [{"min_share": 0.1}, {"min_shift": 0.1}, {"gate_price": 3.0}, {"init": "cold"}])
def test_what_shapes_gates_may_not_differ(change, adata, tmp_path, monkeypatch):
    until_killed(monkeypatch, 16, lambda: svae(adata, checkpoint=tmp_path, **OPTIONS))
    with pytest.raises(ValueError, match=f"is of another fit: `call.{next(iter(change))}` is"):
        svae(adata, checkpoint=tmp_path, **OPTIONS | change)


def test_what_shapes_no_fit_may_differ(adata, tmp_path, monkeypatch):
    expected = adata.copy()
    sv.tl.scvi(expected, "batch", key_added="fit", normalized=False, **OPTIONS)
    until_killed(monkeypatch, 7, lambda: sv.tl.scvi(adata, "batch", checkpoint=tmp_path, **OPTIONS))
    sv.tl.scvi(adata, "batch", checkpoint=tmp_path, key_added="fit", normalized=False, **OPTIONS)
    assert fingerprint(adata) == fingerprint(expected)


def test_the_package_version_counts(adata, tmp_path, monkeypatch):
    until_killed(monkeypatch, 7, lambda: sv.tl.scvi(adata, "batch", checkpoint=tmp_path, **OPTIONS))
    monkeypatch.setattr("scanpy_scvi.store.identity.__version__", "9.9")
    with pytest.raises(ValueError, match=r'`scanpy-scvi` is ".*" there and "9\.9" here'):
        sv.tl.scvi(adata, "batch", checkpoint=tmp_path, **OPTIONS)


def test_a_fit_that_was_ended_by_hand_can_go_on(adata, tmp_path, monkeypatch):
    expected = adata.copy()
    sv.tl.scvi(expected, "batch", **OPTIONS)
    with monkeypatch.context() as patch:
        kill(patch, ProgressLine, "update", 3, KeyboardInterrupt)
        sv.tl.scvi(adata, "batch", checkpoint=tmp_path, on_interrupt="keep", **OPTIONS)
    assert sv.get.convergence(adata)["verdict"] == "interrupted"
    sv.tl.scvi(adata, "batch", checkpoint=tmp_path, **OPTIONS)
    assert fingerprint(adata) == fingerprint(expected)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused_before_the_fit(adata, tmp_path):
    (tmp_path / "file").write_text("")
    before = fingerprint(adata)
    with pytest.raises(OSError, match="file"):
        sv.tl.scvi(adata, "batch", checkpoint=tmp_path / "file", **OPTIONS)
    assert fingerprint(adata) == before


def test_torch_state_stays_the_callers(adata, tmp_path, monkeypatch):
    until_killed(monkeypatch, 7, lambda: sv.tl.scvi(adata, "batch", checkpoint=tmp_path, **OPTIONS))
    before = torch.get_rng_state()
    sv.tl.scvi(adata, "batch", checkpoint=tmp_path, **OPTIONS)
    assert torch.equal(torch.get_rng_state(), before)
