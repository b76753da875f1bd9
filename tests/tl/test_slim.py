"""An object without counts gives what the object with counts gave, or says what it lacks."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import torch
from fingerprint import fingerprint

import scanpy_scvi as sv
from scanpy_scvi.store import load
from scanpy_scvi.store.identity import space_id

READ = {"h5ad": ad.read_h5ad, "zarr": ad.read_zarr}
FITS = {
    "nb": {},
    "zinb, latent library": {"likelihood": "zinb", "dispersion": "gene-batch", "library": "latent"},
    "poisson, size factors, layer": {"likelihood": "poisson", "size_factor_key": "factor", "layer": "counts"},
    "gene-cell": {"dispersion": "gene-cell", "continuous_covariate_keys": ["age"]},
}


def make(options) -> ad.AnnData:
    adata = sv.datasets.simulate(n_cells=150, n_genes=40, density=0.4)
    adata.obs["factor"] = np.linspace(0.5, 2, adata.n_obs)
    adata.obs["age"] = np.arange(adata.n_obs) % 37.0
    adata.obsm["X_umap"] = adata.obsm["true_z"][:, :2]
    adata.raw = adata
    adata.layers["counts"] = adata.X.copy()
    adata.layers["kept"] = np.full(adata.shape, 0.5, np.float32)
    if "layer" in options:
        adata.X = np.log1p(adata.X.toarray())
    sv.tl.scvi(adata, "batch", n_hidden=8, n_latent=3, max_epochs=2, progress=False, **options)
    return adata


@pytest.fixture(scope="module")
def whole() -> dict[str, ad.AnnData]:
    """Fits with their counts; do not change them."""
    return {name: make(options) for name, options in FITS.items()}


@pytest.fixture(params=list(FITS))
def pair(request, whole):
    """A fit, and a slim copy of it."""
    before = whole[request.param]
    return before, sv.tl.slim(before, copy=True)


def test_what_is_dropped_and_what_stays(pair):
    before, slim = pair
    assert slim.X is None
    assert slim.raw is None
    assert set(slim.layers) == {"kept", "true_rate"}
    for slot in ("obsm", "varm", "obsp", "var"):
        assert fingerprint(dict(getattr(slim, slot))) == fingerprint(dict(getattr(before, slot)))
    totals = before.layers["counts"].sum(1)
    np.testing.assert_allclose(np.exp(slim.obs["scvi_log_total"]), np.ravel(totals), rtol=1e-6)
    assert ("scvi_log_library" in slim.obs) == (before.uns["scvi"]["params"]["library"] == "latent")
    assert space_id(slim, "scvi") == space_id(before, "scvi")
    assert slim.uns["scvi"]["schema"] == 1


CALLS = {
    "normalized expression": lambda a: sv.tl.normalized_expression(a, inplace=False),
    "draws": lambda a: sv.tl.normalized_expression(a, n_samples=3, library_size="latent", inplace=False),
    "own batch": lambda a: sv.tl.normalized_expression(a, transform_batch="observed", inplace=False),
    "samples": lambda a: sv.tl.sample(a).X.toarray(),
    "new cells": lambda a: sv.tl.sample(a, 50, groupby="label").X.toarray(),
    "a path": lambda a: (
        sv.tl.interpolate(a, source="label_0", target="label_1", groupby="label", n_steps=4),
        a.uns["scvi_interpolation"]["expression"],
    )[1],
    "densities": lambda a: (sv.tl.differential_abundance(a, "label"), a.obsm["scvi_abundance"])[1],
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_give_the_same(name, pair):
    before, slim = (adata.copy() for adata in pair)
    expected, found = (np.asarray(CALLS[name](adata), float) for adata in (before, slim))
    assert np.isfinite(expected).all()
    if name in {"samples", "new cells"}:  # a count may turn where a rate is rounded otherwise
        assert (found != expected).mean() < 1e-3
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_genes_are_ranked_by_the_model_alone(pair, caplog):
    before, slim = (adata.copy() for adata in pair)
    options = {"n_samples": 400, "pseudocount": 1e-4, "delta": 0.3, "min_counts": 0}
    sv.tl.rank_genes_groups(before, "label", residuals=False, **options)
    sv.tl.rank_genes_groups(slim, "label", **options)
    assert "dropped by `tl.slim`" in caplog.text
    assert not slim.uns["rank_genes_groups_scvi"]["params"]["residuals"]
    expected, found = (
        sv.get.rank_genes_groups_df(a).sort_values(["group", "names"]).reset_index(drop=True) for a in (before, slim)
    )
    for column in ("lfc_mean", "lfc_std", "proba_de", "scale1", "scale2", "n_cells1"):
        np.testing.assert_allclose(found[column], expected[column], rtol=1e-4, atol=1e-5, err_msg=column)
    assert (found["is_de"] == expected["is_de"]).all()
    assert found["nonzero1"].isna().all()
    with pytest.raises(ValueError, match="`min_nonzero` needs the counts"):
        sv.get.rank_genes_groups_df(slim, min_nonzero=0.1)
    for group, table in found.groupby("group", observed=True):  # the model's means are near those of the counts
        counted = expected[expected["group"] == group]
        assert np.corrcoef(np.log(table["raw1"]), np.log(counted["raw1"] + 0.01))[0, 1] > 0.6


def test_what_the_model_expects_is_near_the_counts(cell_lines):
    """After a fit that has learned something, genes rank alike."""
    before = cell_lines.copy()
    sv.tl.scvi(before, "batch", max_epochs=8, normalized=False, progress=False)
    slim = sv.tl.slim(before, copy=True)
    for adata in (before, slim):
        sv.tl.rank_genes_groups(adata, "cell_type", groups=["A549", "H2228"], n_samples=500)
    for group in ("A549", "H2228"):
        found, expected = (sv.get.rank_genes_groups_df(a, group).set_index("names") for a in (slim, before))
        assert len(set(found.index[:50]) & set(expected.index[:50])) >= 25
        found = found.loc[expected.index]
        assert found["scores"].corr(expected["scores"], method="spearman") > 0.8
        seen = expected["raw1"] > 0.1
        assert abs(np.log(found["raw1"][seen] / expected["raw1"][seen])).median() < 0.3


def test_gene_correlations_without_those_of_the_counts(pair, caplog):
    before, slim = (adata.copy() for adata in pair)
    genes = ["gene_0", "gene_1", "gene_2"]
    with pytest.raises(ValueError, match=r"needs the counts.*tl\.slim.*'X'.*n_null=0"):
        sv.tl.gene_correlation(slim, genes)
    tables = [sv.tl.gene_correlation(a, genes, n_null=0, n_samples=200, inplace=False) for a in (before, slim)]
    np.testing.assert_allclose(tables[1]["denoised"], tables[0]["denoised"], rtol=1e-4)
    assert tables[1]["observed"].isna().all()
    assert "`observed`, are NaN" in caplog.text


NEED_COUNTS = {
    "log_likelihood": sv.tl.log_likelihood,
    "trust": sv.tl.trust,
    "posterior_predictive_check": sv.tl.posterior_predictive_check,
    "condition_test": lambda a: sv.tl.condition_test(a, "condition", donor_key="donor", reference="a"),
    "importance weights": lambda a: sv.tl.rank_genes_groups(a, "label", weights="importance"),
}


@pytest.mark.parametrize("name", NEED_COUNTS)
def test_what_needs_counts_says_so(name, whole):
    slim = sv.tl.slim(whole["nb"], copy=True)
    slim.obs["condition"] = np.where(np.arange(slim.n_obs) % 2, "a", "b")
    slim.obs["donor"] = [f"{c}{i % 3}" for i, c in enumerate(slim.obs["condition"])]
    before = fingerprint(slim)
    with pytest.raises(ValueError, match=r"needs the counts, which `tl\.slim` dropped.*'X', 'raw'.*`adata\.X`"):
        NEED_COUNTS[name](slim)
    assert fingerprint(slim) == before


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data will no longer be the default")
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_files(suffix, pair, tmp_path):
    _before, slim = pair
    path = tmp_path / f"slim.{suffix}"
    slim.write_h5ad(path) if suffix == "h5ad" else slim.write_zarr(path)
    back = READ[suffix](path)
    found, expected = (sv.tl.normalized_expression(a, library_size="latent", inplace=False) for a in (back, slim))
    assert found.equals(expected)


def test_cells_may_be_left_out_and_genes_reordered(pair):
    before, slim = pair
    rows = np.flatnonzero(np.arange(before.n_obs) % 3 == 1)[::-1]
    some = slim[rows, ::-1].copy()
    found = sv.tl.normalized_expression(some, library_size="latent", inplace=False)
    expected = sv.tl.normalized_expression(before, library_size="latent", inplace=False).iloc[rows]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert list(found.index) == list(before.obs_names[rows])


def test_in_place_twice_and_back(whole):
    adata = whole["nb"].copy()
    assert sv.tl.slim(adata) is None
    once = fingerprint(adata)
    sv.tl.slim(adata)
    assert fingerprint(adata) == once
    adata.X = whole["nb"].X.copy()  # counts that are put back are used
    sv.tl.log_likelihood(adata, n_samples=5)
    assert (adata.obs["scvi_log_likelihood"] < 0).all()


def test_a_copy_leaves_the_object_alone(whole):
    before = fingerprint(whole["nb"])
    slim = sv.tl.slim(whole["nb"], copy=True)
    slim.obsm["X_scvi"][:] = 0
    slim.uns["scvi"]["state"]["decoder.logits.bias"][:] = 0
    assert fingerprint(whole["nb"]) == before


def test_a_reference_keeps_its_encoder(whole):
    slim = sv.tl.slim(whole["nb"], copy=True)
    query = whole["nb"][:20].copy()
    fitted = load(slim, "scvi").on(query)
    with torch.no_grad():
        mean = fitted.model.encode(fitted.read(query).take(np.arange(20))).mean
    np.testing.assert_allclose(mean, whole["nb"].obsm["X_scvi"][:20], rtol=1e-4, atol=1e-5)


def test_several_fits(whole):
    adata = whole["nb"].copy()
    sv.tl.scvi(adata, key_added="other", n_hidden=8, n_latent=2, max_epochs=1, progress=False)
    before = fingerprint(adata)
    with pytest.raises(ValueError, match=r"also has the fits 'other'.*key=\['scvi', 'other'\]"):
        sv.tl.slim(adata)
    assert fingerprint(adata) == before
    expected = sv.tl.normalized_expression(adata, key="other", inplace=False)
    sv.tl.slim(adata, key=["scvi", "other"])
    assert not {"scvi_normalized", "other_normalized"} & set(adata.layers)
    np.testing.assert_allclose(sv.tl.normalized_expression(adata, key="other", inplace=False), expected, rtol=1e-5)


def test_what_cannot_be_slim(whole, tmp_path):
    with pytest.raises(KeyError, match="no fitted model"):
        sv.tl.slim(sv.datasets.simulate(n_cells=20, n_genes=10))
    changed = whole["nb"].copy()
    changed.obsm["X_scvi"] = changed.obsm["X_scvi"][::-1].copy()
    before = fingerprint(changed)
    with pytest.raises(ValueError, match=r"'X_scvi'.*not what the model gives"):
        sv.tl.slim(changed)
    assert fingerprint(changed) == before
    del changed.obsm["X_scvi"]
    sv.tl.slim(changed)
    np.testing.assert_allclose(changed.obsm["X_scvi"], whole["nb"].obsm["X_scvi"], rtol=1e-4, atol=1e-5)
    whole["nb"].write_h5ad(tmp_path / "fit.h5ad")
    backed = ad.read_h5ad(tmp_path / "fit.h5ad", backed="r")
    with pytest.raises(ValueError, match="lies in a file"):
        sv.tl.slim(backed)
    assert sv.tl.slim(backed, copy=True).X is None
    backed.file.close()


SPOILED = {
    "no totals": (lambda a: a.obs.pop("scvi_log_total"), KeyError, "scvi_log_total"),
    "totals that are NaN": (lambda a: a.obs.__setitem__("scvi_log_total", np.nan), ValueError, "scvi_log_total"),
    "no variances": (lambda a: a.obsm.pop("scvi_latent_var"), KeyError, "scvi_latent_var"),
    "variances of zero": (lambda a: a.obsm["scvi_latent_var"].fill(0), ValueError, "scvi_latent_var.*positive"),
    "a latent space of another fit": (
        lambda a: [a.obsm.__setitem__(k, a.obsm[k][:, :2].copy()) for k in ("X_scvi", "scvi_latent_var")],
        ValueError,
        "X_scvi.*2 columns.*3 dimensions",
    ),
    "no library": (lambda a: a.obs.pop("scvi_log_library"), KeyError, "scvi_log_library"),
    "a library without spread": (
        lambda a: a.obs.__setitem__("scvi_log_library_var", -1.0),
        ValueError,
        "scvi_log_library_var.*not positive",
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_what_stands_for_the_counts_is_checked(name, whole):
    spoil, error, words = SPOILED[name]
    slim = sv.tl.slim(whole["zinb, latent library"], copy=True)
    spoil(slim)
    with pytest.raises(error, match=words):
        sv.tl.normalized_expression(slim)


# a fit without its model


def test_a_fit_without_its_model(tmp_path):
    adata = sv.datasets.simulate(n_cells=100, n_genes=30, density=0.4)
    options = {"n_hidden": 8, "n_latent": 2, "max_epochs": 2, "progress": False}
    full = sv.tl.scvi(adata, "batch", groupby="label", copy=True, **options)
    sv.tl.scvi(adata, "batch", groupby="label", store_model=False, **options)
    entry = adata.uns["scvi"]
    assert not {"state", "spec"} & set(entry)
    assert np.array_equal(adata.obsm["X_scvi"], full.obsm["X_scvi"])
    assert adata.uns["rank_genes_groups_scvi"]["names"].tolist() == full.uns["rank_genes_groups_scvi"]["names"].tolist()
    assert space_id(adata, "scvi") == space_id(full, "scvi")
    adata.write_h5ad(tmp_path / "fit.h5ad")
    back = ad.read_h5ad(tmp_path / "fit.h5ad")
    assert sv.get.history(back).equals(sv.get.history(full))
    assert sv.get.convergence(back)["verdict"] == sv.get.convergence(full)["verdict"]
    for function in (sv.tl.normalized_expression, sv.tl.sample, sv.tl.slim, sv.tl.trust):
        with pytest.raises(KeyError, match=r"`store_model=False`.*no model"):
            function(back)
    sv.tl.scvi(back, "batch", **options)  # a fit of ours may be replaced
    assert "state" in back.uns["scvi"]


def test_no_fit_named_keeps_the_counts():
    adata = sv.datasets.simulate(n_cells=20, n_genes=5)
    with pytest.raises(ValueError, match="`key` is empty"):
        sv.tl.slim(adata, key=[])
    assert adata.X is not None


def test_a_column_of_the_user_is_not_overwritten():
    adata = sv.datasets.simulate(n_cells=60, n_genes=20, density=0.5)
    sv.tl.scvi(adata, max_epochs=1, n_hidden=8, n_latent=2, progress=False)
    adata.obs["scvi_log_total"] = 1.0
    with pytest.raises(ValueError, match=r"`adata.obs\['scvi_log_total'\]` exists and was not written by `tl.slim`"):
        sv.tl.slim(adata)
    assert adata.X is not None
    assert (adata.obs["scvi_log_total"] == 1).all()
