from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from fingerprint import fingerprint
from questions import ask_everything
from scipy import stats
from screens import QUICK, label_shifts, screen

import scanpy_scvi as sv
from scanpy_scvi.store.load import load

NEW = ["perturbation_3", "perturbation_7"]


@pytest.fixture(scope="module")
def cells():
    return screen()


@pytest.fixture(scope="module")
def reference(cells):
    """A quick fit to all but two perturbations; do not change it."""
    adata = cells[~cells.obs["perturbation"].isin(NEW).to_numpy()].copy()
    sv.tl.svae(adata, "perturbation", control="control", batch_key="batch", **QUICK | {"max_epochs": 60})
    return adata


@pytest.fixture(scope="module")
def query(cells, reference):
    """The two others and some known cells, transferred; do not change it."""
    adata = cells[cells.obs["perturbation"].isin([*NEW, "perturbation_1", "control"]).to_numpy()].copy()
    sv.tl.svae_transfer(adata, reference)
    return adata


def test_slots_and_tables(reference, query):
    found, known = query.uns["svae"], reference.uns["svae"]
    assert found["transferred"].tolist() == NEW
    for name in ("effects", "perturbations"):
        assert list(found[name].index) == [*known[name].index, *NEW]
        pd.testing.assert_frame_equal(found[name].iloc[:8], known[name])
    rows = found["targets"]
    assert list(rows["perturbation"][32:]) == [name for name in NEW for _ in range(4)]
    assert found["perturbations"].loc[NEW, "n_cells"].tolist() == [
        (query.obs["perturbation"] == name).sum() for name in NEW
    ]
    np.testing.assert_array_equal(query.varm["svae_programs"], reference.varm["svae_programs"])
    np.testing.assert_allclose(query.obsm["X_svae_basal"], query.obsm["X_svae"] - label_shifts(query), atol=1e-5)


def test_shifts_are_means_of_posterior_means(reference, query):
    within = reference.uns["svae"]["within"]
    batch = pd.Categorical(query.obs["batch"], categories=load(reference, "svae").categories.batch).codes
    z = query.obsm["X_svae"] - within["batch_shift"][batch]
    table = query.uns["svae"]["targets"].set_index(["perturbation", "latent"])
    n_control = (reference.obs["perturbation"] == "control").sum()
    for name in NEW:
        own = (query.obs["perturbation"] == name).to_numpy()
        np.testing.assert_allclose(table.loc[name, "shift"], z[own].mean(0), rtol=1e-3, atol=1e-4)
        error = np.sqrt(within["variance"] * (1 / own.sum() + 1 / n_control))
        np.testing.assert_allclose(table.loc[name, "standard_error"], error, rtol=1e-4)
        evidence = own.sum() * z[own].mean(0) ** 2 / 2
        price = max(own.sum() * 0.5**2, stats.norm.isf(0.05 / 8) ** 2) / 2
        q = np.linspace(0, 1, 10_001)[:-1]
        best = [q[np.argmax(e * q + price * np.log1p(-q))] for e in evidence]
        np.testing.assert_allclose(table.loc[name, "probability"], best, atol=2e-3)


def test_cells_of_one_perturbation_under_a_new_name_have_its_shift_and_targets(cells):
    adata = cells.copy()
    label = adata.obs["perturbation"].astype(str).to_numpy()
    rows = np.flatnonzero(label == max(set(label) - {"control"}, key=lambda name: (label == name).sum()))
    old = label[rows[0]]
    label[rows[::2]] = "again"
    adata.obs["perturbation"] = label
    seen, new = adata[label != "again"].copy(), adata[label == "again"].copy()
    sv.tl.svae(seen, "perturbation", control="control", batch_key="batch", **QUICK | {"max_epochs": 30})
    sv.tl.svae_transfer(new, seen)
    shift = new.uns["svae"]["targets"].pivot_table(
        index="perturbation", columns="latent", values="shift", observed=True
    )
    np.testing.assert_allclose(shift.loc["again"], shift.loc[old], atol=0.6)
    strong = shift.loc[old].abs() > 2
    assert strong.any()
    assert (new.uns["svae"]["effects"].loc["again"] != 0)[strong].all()


def test_new_cells_are_likelier_under_their_own_shift(query):
    """The prior of the model is that of the tables, for known cells and new ones."""
    fitted = load(query, "svae")
    cells = fitted.read(query).take(np.arange(query.n_obs))
    z = fitted.model.encode(cells).mean.detach()
    expected = stats.norm.logpdf(z, label_shifts(query)).sum(1)
    np.testing.assert_allclose(fitted.model.prior.log_prob(z, cells).detach(), expected, rtol=1e-4)
    own = query[(query.obs["perturbation"] == NEW[1]) & ~query.obs["escaped"]].copy()
    sv.tl.log_likelihood(own, key="svae", n_samples=200)
    as_control = own.copy()
    as_control.obs["perturbation"] = "control"
    sv.tl.log_likelihood(as_control, key="svae", n_samples=200)
    assert own.obs["svae_log_likelihood"].mean() > as_control.obs["svae_log_likelihood"].mean() + 1


def test_everything_works_on_a_reloaded_file(query, tmp_path):
    query.copy().write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    ask_everything(back, "svae", groupby="perturbation")
    assert sv.tl.verify(back, key="svae")["level"] != "error"


def test_a_path_serves_as_reference(cells, reference, query, tmp_path):
    reference.copy().write_h5ad(tmp_path / "reference.h5ad")
    adata = cells[cells.obs["perturbation"].isin([*NEW, "perturbation_1", "control"]).to_numpy()].copy()
    sv.tl.svae_transfer(adata, tmp_path / "reference.h5ad", key_added="moved")
    np.testing.assert_array_equal(adata.obsm["X_moved"], query.obsm["X_svae"])
    pd.testing.assert_frame_equal(adata.uns["moved"]["effects"], query.uns["svae"]["effects"])
    assert "moved_programs" not in adata.varm  # nothing but the model is read from a file


def test_combinations_with_known_perturbations_and_another_transfer(cells, reference, query):
    adata = cells[cells.obs["perturbation"].isin(NEW).to_numpy()].copy()
    label = adata.obs["perturbation"].astype(str).to_numpy()
    adata.obs["perturbation"] = np.where(label == NEW[0], f"{NEW[0]}+perturbation_1", label)
    sv.tl.svae_transfer(adata, reference)
    alone, effects = query.uns["svae"]["targets"], adata.uns["svae"]["effects"]
    both = adata.uns["svae"]["targets"].set_index("perturbation").loc[NEW[0], "shift"].to_numpy()
    expected = alone.set_index("perturbation").loc[NEW[0], "shift"] - effects.loc["perturbation_1"].to_numpy()
    np.testing.assert_allclose(both, expected, atol=1e-4)
    third = cells[(cells.obs["perturbation"] == "control").to_numpy()][:30].copy()
    third.obs["perturbation"] = "third"
    sv.tl.svae_transfer(third, adata)
    assert list(third.uns["svae"]["effects"].index[-3:]) == [*NEW, "third"]
    assert (third.uns["svae"]["effects"].loc["third"] == 0).all()


@pytest.mark.parametrize("method", ["ivae", "vae", "svae"])
def test_other_methods_transfer_too(cells, method):
    known = cells[~cells.obs["perturbation"].isin(NEW).to_numpy()].copy()
    new = cells[cells.obs["perturbation"].isin(NEW).to_numpy()].copy()
    sv.tl.svae(known, "perturbation", control="control", batch_key="batch", method=method, **QUICK)
    sv.tl.svae_transfer(new, known)
    table = new.uns["svae"]["targets"][32:]
    shift = load(new, "svae").model.prior.shift.detach().numpy()[-2:].ravel()
    if method == "ivae":
        np.testing.assert_array_equal(shift, table["shift"])
    elif method == "vae":
        assert (shift == 0).all()
        assert table["is_target"].any()
    else:
        np.testing.assert_array_equal(table["is_target"], table["probability"] > 0.5)


def test_what_cannot_be_transferred(cells, reference, query):
    new = cells[cells.obs["perturbation"].isin(NEW).to_numpy()].copy()
    before = fingerprint(new)
    with pytest.raises(KeyError, match="elsewhere"):
        sv.tl.svae_transfer(new, reference, key="elsewhere")
    with pytest.raises(KeyError, match="nowhere"):
        sv.tl.svae_transfer(new, reference, perturbation_key="nowhere")
    with pytest.raises(KeyError, match="genes"):
        sv.tl.svae_transfer(new[:, 1:].copy(), reference)
    other = new.copy()
    other.obs["batch"] = "batch_9"
    with pytest.raises(ValueError, match="batch_9"):
        sv.tl.svae_transfer(other, reference)
    with pytest.raises(ValueError, match="map_query"):
        sv.tl.svae_transfer(reference.copy(), reference)
    with pytest.raises(ValueError, match="same object"):
        sv.tl.svae_transfer(reference, reference)
    plain = reference.copy()
    sv.tl.scvi(plain, n_latent=3, max_epochs=2, progress=False)
    with pytest.raises(ValueError, match=r"tl\.svae"):
        sv.tl.svae_transfer(new, plain, key="scvi")
    assert fingerprint(new) == before


def test_damaged_shifts_are_refused(cells, reference):
    new = cells[cells.obs["perturbation"].isin(NEW).to_numpy()].copy()
    for change in ({"effects": "gone"}, {"rule": {"min_shift": 1.0}}, {"within": {"variance": np.ones(2)}}):
        damaged = reference.copy()
        damaged.uns["svae"] = {**damaged.uns["svae"], **change}
        with pytest.raises((ValueError, TypeError, KeyError), match="svae"):
            sv.tl.svae_transfer(new, damaged)
    assert "svae" not in new.uns


def test_gates_for_nothing_are_open(cells):
    known = cells[~cells.obs["perturbation"].isin(NEW).to_numpy()].copy()
    new = cells[cells.obs["perturbation"].isin(NEW).to_numpy()].copy()
    sv.tl.svae(known, "perturbation", control="control", gate_price=0, **QUICK)
    sv.tl.svae_transfer(new, known)
    assert new.uns["svae"]["targets"].query("perturbation in @NEW")["is_target"].all()
