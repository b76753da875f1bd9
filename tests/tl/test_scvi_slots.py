"""Where results go: other keys, copies, several fits, fits again."""

import numpy as np
import pytest
from fingerprint import fingerprint

import scanpy_scvi as sv
from scanpy_scvi.tl import _fit

SLOTS = {
    "obsm": {"X_{}", "{}_latent_var"},
    "layers": {"{}_normalized"},
    "var": {"{}_modelled", "{}_dispersion"},
    "varm": set(),
    "uns": {"{}"},
    "obs": set(),
    "obsp": set(),
    "varp": set(),
}


def written(before, after):
    """Keys of each slot that are new."""
    return {slot: set(getattr(after, slot)) - set(getattr(before, slot)) for slot in SLOTS}


@pytest.mark.parametrize("key", ["scvi", "my fit", "scvi.2"])
def test_key_added_renames_all_slots_together(key, adata, quick_fit):
    before = adata.copy()
    quick_fit(adata, key_added=key)
    assert written(before, adata) == {slot: {name.format(key) for name in names} for slot, names in SLOTS.items()}
    table = sv.tl.normalized_expression(adata, key=key, inplace=False)
    assert np.array_equal(table, adata.layers[f"{key}_normalized"])
    assert sv.get.convergence(adata, key)["best_epoch"] >= 1


def test_shapes_and_types(adata, quick_fit):
    quick_fit(adata)
    n, g = adata.shape
    assert {k: (v.shape, v.dtype) for k, v in adata.obsm.items() if "scvi" in k} == {
        "X_scvi": ((n, 3), np.float32),
        "scvi_latent_var": ((n, 3), np.float32),
    }
    assert adata.layers["scvi_normalized"].shape == (n, g)
    assert adata.layers["scvi_normalized"].dtype == np.float32
    assert adata.var["scvi_modelled"].dtype == bool
    assert adata.var["scvi_dispersion"].dtype == np.float32
    expected = "schema params spec training categories var_names history convergence state versions seed"
    expected += " validation_cells validation_names data depth denoised_scale"
    assert set(adata.uns["scvi"]) == set(expected.split())
    theta = np.exp(adata.uns["scvi"]["state"]["likelihood.dispersion.log_theta"])[0]
    np.testing.assert_allclose(adata.var["scvi_dispersion"], theta, rtol=1e-6)


def test_copy_returns_a_changed_copy_and_leaves_the_original(adata, quick_fit):
    in_place = adata.copy()
    before = fingerprint(adata)
    changed = quick_fit(adata, copy=True)
    assert fingerprint(adata) == before
    assert quick_fit(in_place) is None
    assert np.array_equal(changed.obsm["X_scvi"], in_place.obsm["X_scvi"])
    changed.X.data[0] = 99
    assert fingerprint(adata) == before


def test_two_fits_lie_side_by_side(adata, quick_fit):
    alone = adata.copy()
    quick_fit(alone, key_added="b", likelihood="zinb")
    quick_fit(adata, key_added="a")
    first = [fingerprint(adata.uns["a"]), fingerprint(adata.obsm["X_a"]), fingerprint(adata.layers["a_normalized"])]
    quick_fit(adata, key_added="b", likelihood="zinb")
    again = [fingerprint(adata.uns["a"]), fingerprint(adata.obsm["X_a"]), fingerprint(adata.layers["a_normalized"])]
    assert first == again
    assert np.array_equal(adata.obsm["X_b"], alone.obsm["X_b"])
    assert np.array_equal(sv.tl.normalized_expression(adata, key="b", inplace=False), adata.layers["b_normalized"])


REFITS = {
    "gene-batch": {"dispersion": "gene-batch"},
    "poisson": {"likelihood": "poisson"},
    "gene-cell": {"dispersion": "gene-cell"},
    "other size": {"n_latent": 5, "n_hidden": 8},
    "masked": {"mask_var": np.arange(100) % 3 > 0},
    "no layer": {"normalized": False},
}


@pytest.mark.parametrize("first", REFITS)
@pytest.mark.parametrize("second", ["plain", *REFITS])
def test_a_new_fit_leaves_nothing_of_the_old_one(first, second, adata, quick_fit):
    options = REFITS.get(second, {})
    fresh = adata.copy()
    quick_fit(fresh, **options)
    quick_fit(adata, **REFITS[first])
    quick_fit(adata, **options)
    assert fingerprint(adata) == fingerprint(fresh)


def test_a_fit_that_fails_leaves_the_earlier_one(adata, quick_fit, monkeypatch):
    quick_fit(adata)
    before = fingerprint(adata)
    monkeypatch.setattr(_fit, "normalized_layer", lambda *a, **_: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        quick_fit(adata, dispersion="gene-batch")
    assert fingerprint(adata) == before


@pytest.mark.parametrize(
    ("normalized", "share", "there"),
    [(True, 0, True), (False, 1, False), ("auto", 1, True), ("auto", 0, False)],
)
def test_normalized_says_whether_the_layer_is_written(normalized, share, there, adata, quick_fit, monkeypatch):
    monkeypatch.setattr(_fit, "LAYER_SHARE", share)
    quick_fit(adata, normalized=normalized)
    assert ("scvi_normalized" in adata.layers) == there
    decision = adata.uns["scvi"]["params"]["normalized"]
    assert decision.startswith("written" if there else "left out")
    assert ("memory" in decision) == (normalized == "auto")
    sv.tl.normalized_expression(adata)
    assert "scvi_normalized" in adata.layers
