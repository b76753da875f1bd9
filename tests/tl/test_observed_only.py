"""`tl.autoimpute` and `tl.scscope`: autoencoders that are scored where there are counts."""

import anndata as ad
import numpy as np
import pytest
import torch
from fingerprint import fingerprint
from questions import ask_everything

import scanpy_scvi as sv
from scanpy_scvi.store.load import load

FITS = {
    "autoimpute": lambda adata, **options: sv.tl.autoimpute(
        adata, "batch", **{"n_latent": 8, "max_epochs": 4, "progress": False} | options
    ),
    "scscope": lambda adata, **options: sv.tl.scscope(
        adata, "batch", **{"n_latent": 4, "max_epochs": 4, "progress": False} | options
    ),
}
each = pytest.mark.parametrize("name", FITS)


@each
def test_the_loss_is_the_squared_error_of_non_zero_entries(name, adata):
    FITS[name](adata)
    fitted = load(adata, name)
    model, cells = fitted.model, fitted.read(adata).take(np.arange(20))
    total = fitted.spec.encoder.options["input_total"]
    x = adata.X[:20].toarray().astype(np.float64)
    y = np.log1p(total * x / x.sum(1, keepdims=True))
    with torch.no_grad():
        output = model.decode(model.encode(cells).mean, cells)
        nll = model.likelihood.nll(output, cells.log_total, cells).double().numpy()
    errors = ((y - output.params.double().numpy()) ** 2 * (x > 0)).sum(1)
    constant = 0.5 * np.log(np.pi) * (x > 0).sum(1)  # of a normal density with variance 1/2
    np.testing.assert_allclose(nll, errors + constant, rtol=1e-4)


@each
def test_later_questions_after_a_file(name, adata, tmp_path):
    FITS[name](adata)
    assert adata.obsm[f"X_{name}"].shape == (adata.n_obs, 8)
    assert (adata.obsm[f"X_{name}"] >= 0).all()
    assert adata.varm[f"{name}_loadings"].shape == (adata.n_vars, 8)
    adata.write_h5ad(tmp_path / "fit.h5ad")
    again = ad.read_h5ad(tmp_path / "fit.h5ad")
    ask_everything(again, name)
    assert sv.tl.verify(again, key=name)["level"] == "ok"


@each
def test_the_same_seed_gives_the_same_bits(name, simulated):
    found = []
    for _ in range(2):
        adata = simulated.copy()
        FITS[name](adata)
        found.append(fingerprint(adata.uns[name]["state"]))
    assert found[0] == found[1]


@each
def test_zeros_are_filled_in_too_high(name):
    """What the documentation warns of: a gene that one kind of cell never expresses is imputed to it all the same."""
    rng = np.random.default_rng(0)
    x = rng.poisson(2.0, (300, 40)).astype(np.float32)
    x[:150, :5] = 0
    x[150:, :5] = rng.poisson(4.0, (150, 5))
    filled, honest = (ad.AnnData(x.copy(), {"batch": ["a"] * 300}) for _ in range(2))
    FITS[name](filled, max_epochs=60)
    sv.tl.scvi(honest, n_latent=3, max_epochs=60, progress=False)
    absent = {key: a.layers[f"{key}_normalized"][:150, :5].mean() for key, a in ((name, filled), ("scvi", honest))}
    assert absent[name] > 10 * absent["scvi"]


@each
@pytest.mark.parametrize(
    "options",
    [{"l2": -1.0}, {"l2": None}, {"target_sum": 0.0}, {"n_latent": 0}, {"n_latent": 10_000}],
    ids=lambda o: next(iter(o)),
)
def test_bad_options(name, options, adata):
    before = fingerprint(adata)
    with pytest.raises(ValueError, match=next(iter(options))):
        FITS[name](adata, **options)
    assert fingerprint(adata) == before


def test_codes_of_a_step_are_held_against_the_genes(adata):
    """The steps say much the same, so all together they may be more than the genes."""
    sv.tl.scscope(adata, n_latent=adata.n_vars, max_epochs=2, progress=False)
    assert adata.obsm["X_scscope"].shape == (adata.n_obs, 2 * adata.n_vars)
    assert np.isfinite(adata.obsm["X_scscope"]).all()


def test_steps_of_scscope(adata):
    sv.tl.scscope(adata, n_latent=3, n_recurrence=3, max_epochs=2, progress=False)
    assert adata.obsm["X_scscope"].shape == (adata.n_obs, 9)
    with pytest.raises(ValueError, match=f"`n_latent` is {adata.n_vars + 1}, but only"):
        sv.tl.scscope(adata, n_latent=adata.n_vars + 1, progress=False)
    with pytest.raises(ValueError, match="`n_recurrence` is 0"):
        sv.tl.scscope(adata, n_recurrence=0, progress=False)
