"""Ctrl-C during a fit of shifts, which has two stages."""

import numpy as np
import pytest
from fingerprint import fingerprint
from screens import QUICK, screen

import scanpy_scvi as sv
from scanpy_scvi.training.fit import _Fit

OPTIONS = QUICK | {"max_epochs": 4, "control": "control", "batch_key": "batch"}
STEPS = 3
"""Of an epoch: 607 cells in minibatches of 256."""


def stopped(monkeypatch, step, **options):
    """A fit that is interrupted in a step, counted from 1 over both stages."""
    adata, original, calls = screen(), _Fit._step, []

    def interrupted(self, *args):
        calls.append(None)
        if len(calls) == step:
            raise KeyboardInterrupt
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(_Fit, "_step", interrupted)
        sv.tl.svae(adata, "perturbation", **OPTIONS | options)
    assert len(calls) >= step
    return adata


@pytest.mark.parametrize("step", [2 * STEPS + 2, 4 * STEPS + 2], ids=["first stage", "first epoch with gates"])
def test_without_an_epoch_with_gates_the_plain_autoencoder_is_kept(monkeypatch, step):
    adata = stopped(monkeypatch, step, on_interrupt="keep")
    end = sv.get.convergence(adata, key="svae")
    assert end["verdict"] == "interrupted"
    assert "before gates were fitted" in end["message"]
    assert len(adata.uns["svae"]["history"]["epoch"]) == step // STEPS
    assert not adata.uns["svae"]["targets"]["is_target"].any()
    assert len(adata.uns["svae"]["gate_density"]) == 0
    if step > 4 * STEPS:
        plain = screen()
        sv.tl.svae(plain, "perturbation", method="vae", **OPTIONS)
        np.testing.assert_array_equal(adata.obsm["X_svae"], plain.obsm["X_svae"])


def test_later_epochs_with_gates_are_kept(monkeypatch):
    adata = stopped(monkeypatch, 5 * STEPS + 2, on_interrupt="keep")
    assert sv.get.convergence(adata, key="svae")["verdict"] == "interrupted"
    assert len(adata.uns["svae"]["gate_density"]) == 1
    assert adata.uns["svae"]["targets"]["is_target"].any()


@pytest.mark.parametrize("step", [STEPS + 1, 4 * STEPS + 1, 5 * STEPS + 1])
def test_by_default_nothing_is_written(monkeypatch, step):
    adata, original, calls = screen(), _Fit._step, []
    before = fingerprint(adata)

    def interrupted(self, *args):
        calls.append(None)
        if len(calls) == step:
            raise KeyboardInterrupt
        return original(self, *args)

    monkeypatch.setattr(_Fit, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sv.tl.svae(adata, "perturbation", **OPTIONS)
    assert fingerprint(adata) == before
