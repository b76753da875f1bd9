import anndata as ad
import numpy as np
import pytest
from fingerprint import fingerprint
from questions import ask_everything

import scanpy_scvi as sv
from scanpy_scvi.store.load import load

OPTIONS = {"max_epochs": 4, "n_hidden": 16, "n_latent": 3, "progress": False}
LONG = OPTIONS | {"max_epochs": 60, "learning_rate": 0.01, "batch_size": 16, "early_stopping": False}


def test_slots_and_what_the_fit_is_made_of(adata):
    before = {slot: set(getattr(adata, slot)) for slot in ("obs", "obsm", "layers")}
    sv.tl.scgen(adata, "batch", **OPTIONS)
    new = {slot: set(getattr(adata, slot)) - before[slot] for slot in before}
    assert new == {"obs": set(), "obsm": {"X_scgen", "scgen_latent_var"}, "layers": {"scgen_normalized"}}
    spec = load(adata, "scgen").spec
    assert (spec.prior.name, spec.likelihood.name) == ("normal", "gaussian")
    assert spec.likelihood.options["sd"] == 1
    assert spec.encoder.options["input_total"] == spec.likelihood.options["total"]
    assert spec.likelihood.options["total"] == pytest.approx(np.median(np.asarray(adata.X.sum(1))), rel=1e-3)
    assert adata.uns["scgen"]["training"]["kl_weight"] == 5e-5
    assert set(adata.uns["scgen"]["history"]["kl_weight"]) == {5e-5}


def test_later_questions_after_a_file(adata, tmp_path):
    sv.tl.scgen(adata, "batch", **OPTIONS)
    adata.write_h5ad(tmp_path / "scgen.h5ad")
    again = ad.read_h5ad(tmp_path / "scgen.h5ad")
    assert sv.tl.verify(again, key="scgen")["level"] == "ok"
    ask_everything(again, "scgen")
    new = sv.tl.predict_perturbation(again, "label", source="label_0", target="label_1", key="scgen")
    assert np.isfinite(new.X).all()


def test_the_loss_is_half_the_squared_error_and_hardly_any_kl(simulated):
    """As reconstructions get better the KL rises, and the fit goes on: with a weight of one it would not."""
    ends = {}
    for weight in (5e-5, 1.0):
        adata = simulated.copy()
        sv.tl.scgen(adata, kl_weight=weight, normalized=False, **LONG)
        history, end = adata.uns["scgen"]["history"], adata.uns["scgen"]["convergence"]
        goal = history["validation_elbo"] + (1 - weight) * history["kl"]
        assert end["best_epoch"] == goal.argmax() + 1
        fitted = load(adata, "scgen")
        cells = fitted.read(adata).take(np.sort(adata.uns["scgen"]["validation_cells"]))
        output = fitted.model.decode(fitted.model.encode(cells).mean, cells)
        nll = fitted.model.likelihood.nll(output, cells.log_total, cells).detach().numpy()
        y = np.log1p(
            fitted.model.likelihood.total
            * cells.counts.log1p().expm1().numpy()
            / np.exp(cells.log_total.numpy())[:, None]
        )
        error = ((y - output.params.detach().numpy()) ** 2).sum(1)
        np.testing.assert_allclose(nll, error / 2 + adata.n_vars / 2 * np.log(2 * np.pi), rtol=1e-4)
        blur = adata.obsm["scgen_latent_var"].mean() / adata.obsm["X_scgen"].var(0).mean()
        ends[weight] = (error.mean(), end["kl"], blur)
    assert ends[5e-5][0] < ends[1.0][0]
    assert ends[5e-5][1] > ends[1.0][1] + 5
    assert ends[5e-5][2] < 0.05 < 0.5 < ends[1.0][2]


def test_the_same_seed_gives_the_same_bits(simulated):
    found = []
    for _ in range(2):
        adata = simulated.copy()
        sv.tl.scgen(adata, "batch", **OPTIONS)
        found.append(fingerprint(adata.uns["scgen"]["state"]))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("options", "named"),
    [({"n_layers": 0}, "n_layers"), ({"target_sum": -1.0}, "target_sum"), ({"n_latent": 200}, "n_latent")],
)
def test_refuses(options, named, adata):
    before = fingerprint(adata)
    with pytest.raises(ValueError, match=named):
        sv.tl.scgen(adata, "batch", **OPTIONS | options)
    assert fingerprint(adata) == before
