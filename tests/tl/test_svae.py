from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from fingerprint import fingerprint
from questions import ask_everything
from scipy import stats
from screens import QUICK, label_shifts, screen, wide

import scanpy_scvi as sv
from scanpy_scvi.store.load import load


@pytest.fixture(scope="module")
def cells():
    return screen()


@pytest.fixture(scope="module")
def fit(cells):
    """A quick fit; do not change it."""
    adata = cells.copy()
    sv.tl.svae(adata, "perturbation", control="control", batch_key="batch", **QUICK)
    return adata


def test_slots(cells, fit):
    slots = ("obs", "var", "obsm", "varm", "layers", "uns")
    new = {slot: set(getattr(fit, slot)) - set(getattr(cells, slot)) for slot in slots}
    assert new == {
        "obs": {"svae_response"},
        "var": {"svae_modelled", "svae_dispersion", "svae_basal_expression"},
        "obsm": {"X_svae", "svae_latent_var", "X_svae_basal"},
        "varm": {"svae_programs"},
        "layers": {"svae_normalized"},
        "uns": {"svae"},
    }
    names = sorted(set(cells.obs["perturbation"]) - {"control"})
    for table in ("effects", "perturbations"):
        assert list(fit.uns["svae"][table].index) == names
    assert list(fit.uns["svae"]["targets"]["perturbation"]) == [name for name in names for _ in range(4)]
    assert fit.varm["svae_programs"].shape == (60, 4)
    assert fit.uns["svae"]["params"]["perturbation_key"] == "perturbation"


def test_shifts_are_least_squares_with_batches_and_errors_from_them(fit):
    z, names = fit.obsm["X_svae"].astype(float), list(fit.uns["svae"]["effects"].index)
    one_hot = np.stack([(fit.obs["perturbation"] == name).to_numpy(float) for name in names], axis=1)
    sign = np.where(fit.obs["batch"] == "batch_0", 1.0, -1.0)[:, None]
    columns = np.hstack([one_hot, np.ones((fit.n_obs, 1)), sign])
    found, *_ = np.linalg.lstsq(columns, z, rcond=None)
    np.testing.assert_allclose(wide(fit, "shift"), found[:-2], atol=1e-4)
    np.testing.assert_allclose(found[-2], 0, atol=1e-4)  # the control is at the origin
    inverse = np.diag(np.linalg.inv(columns.T @ columns))[: len(names), None]
    cell_group = fit.obs.groupby(["perturbation", "batch"], observed=True).ngroup().to_numpy()
    means = pd.DataFrame(z).groupby(cell_group).transform("mean").to_numpy()
    variance = ((z - means) ** 2).sum(0) / (fit.n_obs - len(np.unique(cell_group)))
    np.testing.assert_allclose(wide(fit, "standard_error"), np.sqrt(inverse * variance), rtol=1e-3)


def test_a_gate_is_open_where_the_rule_says_so(fit):
    rule = fit.uns["svae"]["rule"]
    shift, error = np.abs(wide(fit, "shift")), wide(fit, "standard_error")
    expected = (shift > rule["min_shift"]) & (shift > rule["min_share"] * shift.max(1, keepdims=True))
    expected &= (shift > rule["min_errors"] * error) & (wide(fit, "probability") > 0.5)
    np.testing.assert_array_equal(wide(fit, "is_target"), expected)
    assert 0.1 < expected.mean() < 0.9
    assert rule["min_errors"] >= stats.norm.isf(0.05 / 8)


def test_tables_agree(fit):
    found = fit.uns["svae"]
    opened = wide(fit, "is_target")
    np.testing.assert_array_equal(found["effects"].to_numpy(), np.where(opened, wide(fit, "shift"), 0))
    table = found["perturbations"]
    n_cells = fit.obs["perturbation"].value_counts()[table.index]
    np.testing.assert_array_equal(table["n_cells"], n_cells)
    np.testing.assert_array_equal(table["n_targets"], opened.sum(1))
    np.testing.assert_allclose(table["effect"], np.linalg.norm(found["effects"], axis=1), rtol=1e-5)
    np.testing.assert_allclose(
        wide(fit, "evidence"), n_cells.to_numpy()[:, None] * wide(fit, "shift").astype(float) ** 2 / 2, rtol=1e-4
    )
    by_perturbation = fit.obs.groupby("perturbation", observed=True)["svae_response"].mean()
    np.testing.assert_allclose(table["response"], by_perturbation[table.index], rtol=1e-4)
    held_out = fit.obs.loc[[str(name) for name in found["validation_names"]]]
    gain = held_out.groupby("perturbation", observed=True)["svae_response"].mean().reindex(table.index)
    np.testing.assert_allclose(table["gain"], gain, rtol=1e-4)


def test_basal_states_and_responses(fit):
    z, shift = fit.obsm["X_svae"].astype(float), label_shifts(fit).astype(float)
    np.testing.assert_allclose(fit.obsm["X_svae_basal"], z - shift, atol=1e-5)
    ratio = (stats.norm.logpdf(z, shift) - stats.norm.logpdf(z)).sum(1)
    np.testing.assert_allclose(fit.obs["svae_response"], ratio, rtol=1e-3, atol=1e-3)
    assert (fit.obs["svae_response"][fit.obs["perturbation"] == "control"] == 0).all()


def test_cells_that_escaped_respond_less(fit):
    perturbed = (fit.obs["perturbation"] != "control").to_numpy()
    response, escaped = fit.obs["svae_response"][perturbed], fit.obs["escaped"][perturbed]
    assert escaped.sum() > 20
    auroc = stats.mannwhitneyu(response[~escaped], response[escaped]).statistic / (escaped.sum() * (~escaped).sum())
    assert auroc > 0.9


def test_the_prior_of_the_model_is_that_of_the_tables(fit):
    fitted = load(fit, "svae")
    prior, labels = fitted.model.prior, fitted.categories.labels
    effects = fit.uns["svae"]["effects"]
    for label, shift in zip(labels, prior.label_shift().detach().numpy(), strict=True):
        np.testing.assert_allclose(shift, effects.loc[label] if label != "control" else 0, atol=1e-6)
    cells = fitted.read(fit).take(np.arange(20))
    z = fitted.model.encode(cells).mean
    expected = stats.norm.logpdf(z.detach(), label_shifts(fit[:20])).sum(1)
    np.testing.assert_allclose(prior.log_prob(z, cells).detach(), expected, rtol=1e-4)


def test_programs_are_slopes_of_log_expression(fit):
    """Against the model's own decoder, cell by cell."""
    fitted = load(fit, "svae")
    rows = np.flatnonzero(fit.obs["perturbation"] == "control")
    assert len(rows) < 500  # all of them are in the mean
    import torch

    cells, z = fitted.read(fit).take(rows), torch.from_numpy(fit.obsm["X_svae_basal"][rows])
    for j in range(4):
        step = torch.zeros(4).index_fill(0, torch.tensor([j]), 1.0)
        with torch.no_grad():
            up, down = (fitted.model.decode(z + sign * step, cells) for sign in (1, -1))
            log_rho = [fitted.model.likelihood.proportions(output).log() for output in (up, down)]
        np.testing.assert_allclose(fit.varm["svae_programs"][:, j], (log_rho[0] - log_rho[1]).mean(0) / 2, atol=1e-4)
    with torch.no_grad():
        share = fitted.model.likelihood.proportions(fitted.model.decode(z, cells)).mean(0)
    np.testing.assert_allclose(fit.var["svae_basal_expression"], 1e4 * share, rtol=1e-4)


def test_latents_and_targets_of_a_simulated_screen_are_found():
    options = {"protocol": "reference", "softmax_over": "genes", "n_genes": 100, "cells_per_perturbation": 100}
    adata = sv.datasets.simulate_perturbations(n_perturbations=40, n_latent=6, random_state=20, **options)
    sv.tl.svae(adata, "perturbation", n_latent=6, max_epochs=60, normalized=False, progress=False)
    match = sv.metrics.mcc(adata.obsm["z"], adata.obsm["X_svae"])
    true = adata.uns["simulation"]
    order = adata.uns["svae"]["effects"].index.get_indexer(true["perturbations"])
    scores = sv.metrics.target_f1(true["targets"], wide(adata, "is_target")[order], match.assignment)
    assert match.mcc > 0.85
    assert scores.f1 > 0.85


def test_null_perturbations_of_the_control_open_hardly_any_gate():
    adata = screen(control_fraction=0.6, random_state=3)
    control = np.flatnonzero(adata.obs["perturbation"] == "control")
    label = adata.obs["perturbation"].astype(str).to_numpy()
    for i, part in enumerate(np.array_split(np.random.default_rng(0).permutation(control)[:400], 8)):
        label[part] = f"null_{i}"
    adata.obs["with_nulls"] = label
    sv.tl.svae(adata, "with_nulls", control="control", batch_key="batch", **QUICK | {"max_epochs": 20})
    n_targets = adata.uns["svae"]["perturbations"]["n_targets"]
    of_null = n_targets[[name.startswith("null") for name in n_targets.index]]
    assert len(of_null) == 8
    assert of_null.sum() <= 1
    assert n_targets.drop(of_null.index).mean() > 1


def test_the_control_is_parted_at_random_or_by_groups(cells, fit):
    found = fit.uns["svae"]
    scores = np.abs(found["null_shifts"]) / found["null_errors"]
    assert scores.shape == (200, 4)
    assert np.sqrt((scores**2).mean()) == pytest.approx(1, abs=0.35)
    half = (fit.obs["perturbation"] == "control").sum() // 2
    assert set(found["null_cells"]) <= {min(n, half) for n in found["perturbations"]["n_cells"]}
    options = {"control": "control", "batch_key": "batch", "null_key": "guide"}
    by_guide = sv.tl.svae(cells, "perturbation", copy=True, **options, **QUICK)
    assert by_guide.uns["svae"]["null_shifts"].shape == (5, 4)
    z = fit.obsm["X_svae"][(fit.obs["perturbation"] == "control").to_numpy()]
    assert by_guide.uns["svae"]["null_cells"].sum() == len(z)
    np.testing.assert_array_equal(by_guide.obsm["X_svae"], fit.obsm["X_svae"])  # it has no part in the fit


def test_methods(cells, fit):
    def of(method, **options):
        options = {"control": "control", "batch_key": "batch", "method": method} | QUICK | options
        return sv.tl.svae(cells, "perturbation", copy=True, **options)

    ivae = of("ivae")
    np.testing.assert_array_equal(ivae.uns["svae"]["effects"].to_numpy(), wide(ivae, "shift"))
    assert (wide(ivae, "probability") == 1).all()
    vae = of("vae")
    shift = load(vae, "svae").model.prior.label_shift().detach().numpy()
    assert (shift == 0).all()
    assert wide(vae, "is_target").any()
    assert len(vae.uns["svae"]["gate_density"]) == 0
    assert len(vae.uns["svae"]["history"]["epoch"]) == 12
    cold = of("vae", init="cold")
    assert np.abs(np.corrcoef(cold.obsm["X_svae"].T) - np.corrcoef(vae.obsm["X_svae"].T)).max() > 1e-3
    beta = of("beta-vae")
    assert beta.uns["svae"]["training"]["kl_weight"] == 2
    assert of("beta-vae", kl_weight=3).uns["svae"]["training"]["kl_weight"] == 3
    assert len(fit.uns["svae"]["history"]["epoch"]) == 12 + 6
    assert len(fit.uns["svae"]["gate_density"]) == 6
    np.testing.assert_array_equal(fit.uns["svae"]["history"]["epoch"], np.arange(1, 19))


def test_a_price_alone_decides_where_it_is_given(cells):
    shares = []
    for price in (0.0, 50.0, 1e4):
        adata = sv.tl.svae(cells, "perturbation", control="control", gate_price=price, copy=True, **QUICK)
        np.testing.assert_array_equal(wide(adata, "is_target"), wide(adata, "probability") > 0.5)
        shares.append(wide(adata, "is_target").mean())
    assert shares[0] == 1
    assert 1 > shares[1] > shares[2] == 0
    linear = sv.tl.svae(cells, "perturbation", control="control", method="svae", copy=True, **QUICK)
    assert '"linear"' in linear.uns["svae"]["spec"]
    price = linear.uns["svae"]["state"]["prior.price"]
    np.testing.assert_allclose(price, 25 * cells.n_obs / (10 * 4))


def test_gumbel_gates(cells):
    adata = sv.tl.svae(cells, "perturbation", control="control", batch_key="batch", gates="gumbel", copy=True, **QUICK)
    assert '"gumbel"' in adata.uns["svae"]["spec"]
    assert np.isfinite(adata.obsm["X_svae"]).all()
    assert 0.1 < wide(adata, "is_target").mean() < 0.9


def test_the_same_seed_gives_the_same_bits_and_another_does_not(cells, fit):
    again = sv.tl.svae(cells, "perturbation", control="control", batch_key="batch", copy=True, **QUICK)
    assert fingerprint(again) == fingerprint(fit)
    other = sv.tl.svae(cells, "perturbation", control="control", batch_key="batch", copy=True, random_state=1, **QUICK)
    assert np.abs(other.obsm["X_svae"] - fit.obsm["X_svae"]).max() > 0.01


@pytest.mark.filterwarnings("ignore:Writing zarr v2:UserWarning")  # anndata's own default
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_everything_after_the_fit_works_on_a_reloaded_file(fit, tmp_path, kind):
    getattr(fit.copy(), f"write_{kind}")(tmp_path / f"a.{kind}")
    back = getattr(ad, f"read_{kind}")(tmp_path / f"a.{kind}")
    for name in ("effects", "perturbations", "targets"):
        pd.testing.assert_frame_equal(back.uns["svae"][name], fit.uns["svae"][name], check_categorical=False)
    ask_everything(back, "svae", groupby="perturbation")
    assert sv.tl.verify(back, key="svae")["level"] == "ok"


def test_new_cells_are_mapped_with_their_perturbations(fit, cells):
    query = cells[::3].copy()
    sv.tl.map_query(query, fit, key="svae")
    np.testing.assert_allclose(query.obsm["X_svae"], fit[::3].obsm["X_svae"], atol=1e-4)
    sv.tl.log_likelihood(query, key="svae", n_samples=10)  # under the prior of their labels
    query.obs["perturbation"] = query.obs["perturbation"].astype(str).replace("control", "unheard of")
    with pytest.raises(ValueError, match="unheard of"):
        sv.tl.map_query(query, fit, key="svae")


def test_a_refit_replaces_what_was_there(fit):
    again = fit.copy()
    again.obs["svae_note"] = "mine"
    sv.tl.svae(again, "perturbation", control="control", batch_key="batch", **QUICK | {"n_latent": 3})
    assert again.obsm["X_svae_basal"].shape[1] == again.varm["svae_programs"].shape[1] == 3
    sv.tl.scvi(again, key_added="svae", n_latent=3, max_epochs=2, progress=False)
    assert "X_svae_basal" not in again.obsm
    assert "svae_programs" not in again.varm
    assert "svae_basal_expression" not in again.var
    assert "svae_response" not in again.obs
    assert "svae_note" in again.obs


BAD = [
    ({"perturbation_key": "nowhere"}, KeyError, "perturbation_key"),
    ({"perturbation_key": "partly"}, ValueError, "leave them out"),
    ({"control": "nobody"}, ValueError, "nobody"),
    ({"null_key": "nowhere"}, KeyError, "null_key"),
    ({"method": "sams"}, ValueError, "method"),
    ({"gates": "soft"}, ValueError, "gates"),
    ({"init": "warm"}, ValueError, "init"),
    ({"min_shift": -1}, ValueError, "min_shift"),
    ({"min_share": 1.5}, ValueError, "min_share"),
    ({"gate_price": -1}, ValueError, "gate_price"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD)
def test_bad_input_is_refused_and_nothing_written(cells, options, error, message):
    adata = cells.copy()
    adata.obs["partly"] = adata.obs["perturbation"].astype(object).where(np.arange(adata.n_obs) > 5, None)
    before = fingerprint(adata)
    with pytest.raises(error, match=message):
        sv.tl.svae(adata, **{"perturbation_key": "perturbation", "control": "control"} | options, **QUICK)
    assert fingerprint(adata) == before


def test_what_is_not_of_a_fit_is_not_overwritten(cells):
    adata = cells.copy()
    adata.obsm["X_svae_basal"] = np.zeros((adata.n_obs, 2))
    with pytest.raises(ValueError, match="X_svae_basal"):
        sv.tl.svae(adata, "perturbation", control="control", **QUICK)
    assert "svae" not in adata.uns
