"""Every verdict on convergence, provoked by a fit."""

import numpy as np
import pytest

import scanpy_scvi as sv

SMALL = {"n_hidden": 16, "n_latent": 3, "n_layers": 1, "batch_size": 32, "progress": False}
PROVOKED = {
    "converged": {"max_epochs": 400, "learning_rate": 0.02},
    "still improving": {"max_epochs": 30, "learning_rate": 0.003, "random_state": 1},
    "KL collapsed": {"max_epochs": 40, "learning_rate": 0.05, "kl_weight": 100.0, "early_stopping": False},
    "diverged": {"max_epochs": 30, "learning_rate": 3.0, "norm": "none", "early_stopping": False},
}
ADVICE = {"still improving": "still gained", "KL collapsed": "kl_weight", "diverged": "learning_rate"}


@pytest.mark.parametrize("verdict", PROVOKED)
def test_verdict(verdict, adata):
    sv.tl.scvi(adata, "batch", **SMALL, **PROVOKED[verdict])
    end, history = sv.get.convergence(adata), sv.get.history(adata)
    assert end["verdict"] == verdict, end
    assert end["message"].startswith(f"{verdict} after {len(history)} epochs")
    assert ADVICE.get(verdict, "") in end["message"]
    goal = history["validation_elbo"] + (1 - history["kl_weight"].iloc[-1]) * history["kl"]
    assert end["best_epoch"] == goal.idxmax()
    assert end["best_elbo"] >= history["validation_elbo"][end["best_epoch"]]  # dispersions settle at the end
    assert end["kl"] == history["kl"][end["best_epoch"]]
    assert end["n_active"] == (adata.obsm["X_scvi"].var(0) > 0.01).sum()
    assert np.isfinite(end["recent_gain"])
    if verdict == "KL collapsed":
        assert end["n_active"] == 0
        assert end["kl"] < 0.5
    if verdict == "converged":
        assert len(history) < 400


@pytest.mark.parametrize("max_epochs", [1, 2])
def test_too_few_epochs_to_tell(max_epochs, adata):
    sv.tl.scvi(adata, "batch", **SMALL, max_epochs=max_epochs)
    end = sv.get.convergence(adata)
    assert end["verdict"] == "still improving"
    assert "too few steps" in end["message"]


def test_overfitting_ends_as_converged_with_the_best_weights(adata):
    options = SMALL | {"n_hidden": 64, "max_epochs": 80, "learning_rate": 0.02, "dropout_rate": 0}
    sv.tl.scvi(adata, "batch", early_stopping=False, **options)
    end, history = sv.get.convergence(adata), sv.get.history(adata)
    assert history["validation_elbo"].iloc[-1] < history["validation_elbo"].iloc[0]  # worse than at its start
    assert history["train_elbo"].iloc[-1] > history["train_elbo"].iloc[0]
    assert end["verdict"] == "converged"
    assert end["best_elbo"] > history["validation_elbo"].iloc[0]
