"""Ctrl-C during a fit."""

import numpy as np
import pytest
from fingerprint import fingerprint

import scanpy_scvi as sv
from scanpy_scvi._progress import ProgressLine
from scanpy_scvi.modules import VAE
from scanpy_scvi.training.fit import _Fit

OPTIONS = {"batch_size": 32, "max_epochs": 8, "n_hidden": 16, "n_latent": 3, "progress": False}


def interrupt(monkeypatch, owner, name, call):
    """Raise KeyboardInterrupt in the given call of a method."""
    original, calls = getattr(owner, name), []

    def method(self, *args, **kwargs):
        calls.append(None)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(owner, name, method)


WHERE = {  # 108 cells train in 4 steps an epoch and 12 are evaluated in one: 5 forward passes an epoch
    "first step": (_Fit, "_step", 1, 0),
    "step of epoch 4": (_Fit, "_step", 14, 3),
    "evaluation of epoch 4": (VAE, "forward", 20, 3),
    "line of epoch 3": (ProgressLine, "update", 3, 3),
    "weights of epoch 1": (_Fit, "_keep_if_best", 1, 0),
    "weights of epoch 3": (_Fit, "_keep_if_best", 3, 2),
}


@pytest.mark.parametrize("where", WHERE)
def test_nothing_is_written_by_default(where, adata, monkeypatch):
    owner, name, call, _ = WHERE[where]
    interrupt(monkeypatch, owner, name, call)
    before = fingerprint(adata)
    with pytest.raises(KeyboardInterrupt):
        sv.tl.scvi(adata, "batch", **OPTIONS)
    assert fingerprint(adata) == before


@pytest.mark.parametrize("where", WHERE)
def test_the_best_weights_so_far_are_kept_on_request(where, adata, monkeypatch):
    owner, name, call, n_epochs = WHERE[where]
    before, expected = fingerprint(adata), adata.copy()
    with monkeypatch.context() as patch:
        interrupt(patch, owner, name, call)
        if n_epochs == 0:  # there is nothing to keep
            with pytest.raises(KeyboardInterrupt):
                sv.tl.scvi(adata, "batch", on_interrupt="keep", **OPTIONS)
            assert fingerprint(adata) == before
            return
        sv.tl.scvi(adata, "batch", on_interrupt="keep", **OPTIONS)
    sv.tl.scvi(expected, "batch", **(OPTIONS | {"max_epochs": n_epochs}))
    assert np.array_equal(adata.obsm["X_scvi"], expected.obsm["X_scvi"])
    assert np.array_equal(adata.layers["scvi_normalized"], expected.layers["scvi_normalized"])
    for key in ("state", "history"):
        assert fingerprint(adata.uns["scvi"][key]) == fingerprint(expected.uns["scvi"][key])
    end = sv.get.convergence(adata)
    assert end["verdict"] == "interrupted"
    assert f"interrupted after {n_epochs} epochs" in end["message"]
    assert end["best_elbo"] >= max(adata.uns["scvi"]["history"]["validation_elbo"])


def test_kept_weights_are_the_best_even_where_the_last_would_be(adata, monkeypatch):
    interrupt(monkeypatch, _Fit, "_step", 4 * 60 + 2)
    options = OPTIONS | {"max_epochs": 400, "preset": "scvi-tools", "learning_rate": 0.03, "n_hidden": 64}
    sv.tl.scvi(adata, "batch", on_interrupt="keep", **options)
    elbo = adata.uns["scvi"]["history"]["validation_elbo"]
    assert elbo[-1] < max(elbo)
    assert sv.get.convergence(adata)["best_elbo"] >= max(elbo)  # dispersions settle at the end
