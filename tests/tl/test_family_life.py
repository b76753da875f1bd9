"""What happens to a fit later, whichever model it is of: new cells, labels, files, a slim object, a report."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

import anndata as ad
import numpy as np
import pytest

import scanpy_scvi as sv
from scanpy_scvi.store.load import load

FEW = {"max_epochs": 3, "n_hidden": 16, "progress": False}
GENES = [f"gene_{i}" for i in range(60)]
SETS = {"first": GENES[:20], "second": GENES[15:40], "third": GENES[35:]}
MODELS = {
    "ldvae": lambda adata: sv.tl.ldvae(adata, "batch", n_latent=3, **FEW),
    "vega": lambda adata: sv.tl.vega(adata, SETS, batch_key="batch", min_genes=5, n_unannotated=1, **FEW),
    "scvae": lambda adata: sv.tl.scvae(adata, "batch", n_latent=3, n_components=4, **FEW),
    "dca": lambda adata: sv.tl.dca(adata, "batch", n_latent=3, **FEW),
    "ae": lambda adata: sv.tl.autoencoder(adata, "batch", n_latent=3, **FEW),
    "pca": lambda adata: sv.tl.autoencoder(adata, "batch", n_latent=3, n_layers=0, key_added="pca", **FEW),
    "vae": lambda adata: sv.tl.autoencoder(adata, "batch", n_latent=3, variational=True, key_added="vae", **FEW),
    "scgen": lambda adata: sv.tl.scgen(adata, "batch", n_latent=3, **FEW),
    "saucie": lambda adata: sv.tl.saucie(adata, "batch", **FEW),
    "autoimpute": lambda adata: sv.tl.autoimpute(adata, "batch", n_latent=9, max_epochs=3, progress=False),
    "scscope": lambda adata: sv.tl.scscope(adata, "batch", n_latent=4, max_epochs=3, progress=False),
    "scvis": lambda adata: sv.tl.scvis(adata, "batch", perplexity=5.0, **FEW),
    "svae": lambda adata: sv.tl.svae(adata, "label", control="label_0", batch_key="batch", n_latent=3, **FEW),
    "dgd": lambda adata: sv.tl.dgd(adata, "batch", n_latent=3, n_components=4, **FEW | {"max_epochs": 20}),
}
HAVE_LOADINGS = ("ldvae", "vega", "pca", "autoimpute", "scscope")


@pytest.fixture(scope="module")
def cells():
    """300 cells of three batches, of which the last is new; do not change it."""
    adata = sv.datasets.simulate(n_cells=300, n_genes=60, n_batches=3, density=0.5)
    adata.obs["batch"] = adata.obs["batch"].astype(str)
    return adata


@pytest.fixture(scope="module")
def fit_of(cells):
    """Give the fit of a model to two batches, by name; do not change it."""

    @cache
    def fit(name):
        adata = cells[(cells.obs["batch"] != "batch_2").to_numpy()].copy()
        MODELS[name](adata)
        return adata

    return fit


@pytest.fixture(scope="module", params=MODELS)
def fit(request, fit_of):
    """Name of a model, and its fit; do not change it."""
    return request.param, fit_of(request.param)


@pytest.fixture(scope="module")
def mapped(fit, cells):
    """New cells without some genes, mapped to the fit; do not change them."""
    key, reference = fit
    query = cells[(cells.obs["batch"] == "batch_2").to_numpy(), 5:].copy()
    sv.tl.map_query(query, reference, key=key, normalized=True, max_epochs=2, progress=False)
    return query


def levels(report):
    return {finding["topic"]: finding["level"] for finding in report["findings"]}


def test_new_cells_are_mapped_into_the_space_of_the_fit(fit, mapped):
    key, reference = fit
    assert mapped.uns[f"{key}_mapping"]["new_batches"].tolist() == ["batch_2"]
    assert mapped.obsm[f"X_{key}"].shape == (mapped.n_obs, reference.obsm[f"X_{key}"].shape[1])
    assert np.isfinite(mapped.obsm[f"X_{key}"]).all()
    assert load(mapped, key).categories.batch == ("batch_0", "batch_1", "batch_2")
    if key in HAVE_LOADINGS:
        of_reference = reference[:, mapped.var_names].varm[f"{key}_loadings"]
        np.testing.assert_array_equal(mapped.varm[f"{key}_loadings"], of_reference)
    if key == "vega":
        assert list(mapped.uns[key]["gene_sets"]) == list(reference.uns[key]["gene_sets"])


def test_activities_are_ranked_in_new_cells(fit, mapped):
    key, reference = fit
    if key not in HAVE_LOADINGS:
        pytest.skip("its latent dimensions have no meaning")
    query = mapped.copy()
    sv.tl.rank_activities(query, "label", key=key)
    table = sv.get.rank_activities_df(query, key=f"rank_activities_{key}").set_index(["group", "names"])
    sv.tl.rank_activities(reference, "label", key=key)
    known = sv.get.rank_activities_df(reference, key=f"rank_activities_{key}").set_index(["group", "names"])
    assert set(table.index) == set(known.index)
    assert table["proba"].between(0, 1).all()
    names = known.index.get_level_values("names").unique().sort_values()
    sets = list(query.uns[key].get("gene_sets", [f"factor {i}" for i in range(query.obsm[f"X_{key}"].shape[1])]))
    for group in query.obs["label"].unique():
        mean = query.obsm[f"X_{key}"][(query.obs["label"] == group).to_numpy()].mean(0)
        expected = mean[[sets.index(name) for name in names]]
        np.testing.assert_allclose(table.loc[group].loc[names, "mean1"], expected, rtol=1e-4, atol=1e-5)


def test_cells_of_the_reference_are_mapped_to_where_they_are(fit):
    key, reference = fit
    again = reference.copy()
    del again.obsm[f"X_{key}"]
    again.uns.pop(key)
    for slot in (again.obs, again.obsm, again.varm, again.var, again.layers):
        for name in [name for name in slot if name is not None and key in name]:
            del slot[name]
    sv.tl.map_query(again, reference, key=key, progress=False)
    if key == "dgd":  # the search may end at another maximum
        distance = np.linalg.norm(again.obsm["X_dgd"] - reference.obsm["X_dgd"], axis=1)
        assert np.median(distance) < 0.05 * reference.obsm["X_dgd"].std()
    else:
        np.testing.assert_allclose(again.obsm[f"X_{key}"], reference.obsm[f"X_{key}"], rtol=1e-4, atol=1e-4)


def test_mapped_cells_and_those_of_the_fit_pass_a_report_after_a_file(fit, mapped, tmp_path):
    key, reference = fit
    for name, adata in {"reference": reference, "query": mapped}.items():
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
        back = ad.read_h5ad(tmp_path / f"{name}.h5ad")
        found = levels(sv.tl.verify(back, key=key))
        assert found["latent"] == found["normalized"] == found["counts"] == "ok"
        back.obsm[f"X_{key}"] = back.obsm[f"X_{key}"] + 1
        assert levels(sv.tl.verify(back, key=key))["latent"] == "error"


LOADS = """
import sys, anndata as ad
from scanpy_scvi.store import load
for key, path in zip(sys.argv[1::2], sys.argv[2::2]):
    load(ad.read_h5ad(path), key)
    print(key, "torch._dynamo" in sys.modules, "sympy" in sys.modules)
"""


def test_loading_leaves_torchs_compiler_alone(fit_of, tmp_path):
    """The model is made without memory first; some functions of torch would load its compiler for it."""
    words = []
    for key in MODELS:  # one process for all: the first line that says True names the model
        fit_of(key).write_h5ad(tmp_path / f"{key}.h5ad")
        words += [key, str(tmp_path / f"{key}.h5ad")]
    done = subprocess.run([sys.executable, "-c", LOADS, *words], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"{key} False False" for key in MODELS]


def test_labels_come_from_the_reference(fit, mapped):
    key, reference = fit
    query = mapped.copy()
    sv.tl.transfer_labels(query, reference, "label", key=key)
    assert set(query.obs["label_pred"]) <= set(reference.obs["label"])
    assert levels(sv.tl.verify(query, key=key))["mapping"] == "ok"


def test_a_slim_object_decodes_as_the_whole_one(fit, tmp_path):
    key, whole = fit
    sv.tl.slim(whole, key=key, copy=True).write_h5ad(tmp_path / "slim.h5ad")
    back = ad.read_h5ad(tmp_path / "slim.h5ad")
    assert back.X is None
    assert levels(sv.tl.verify(back, key=key))["counts"] == "note"
    for adata, again in ((whole, back), (whole[::3].copy(), back[::3].copy())):
        decoded = [sv.tl.normalized_expression(one, key=key, inplace=False) for one in (adata, again)]
        np.testing.assert_allclose(decoded[1], decoded[0], rtol=1e-5)


def test_a_slim_reference_takes_new_cells(fit, mapped, cells):
    key, reference = fit
    query = cells[(cells.obs["batch"] == "batch_2").to_numpy(), 5:].copy()
    small = sv.tl.slim(reference, key=key, copy=True)
    sv.tl.map_query(query, small, key=key, max_epochs=2, progress=False)
    np.testing.assert_array_equal(query.obsm[f"X_{key}"], mapped.obsm[f"X_{key}"])


@pytest.mark.parametrize("fit", ["dgd"], indirect=True)
def test_without_an_encoder_only_what_is_new_is_learned(fit, mapped):
    """Weights of the mapped model are those of the fit, to the bit, but for columns of the new batch."""
    _, reference = fit
    old, new = reference.uns["dgd"]["state"], mapped.uns["dgd"]["state"]
    assert set(old) == set(new)
    changed = set()
    for name, before in old.items():
        if before.shape == new[name].shape:
            np.testing.assert_array_equal(new[name], before)
        else:
            changed.add(name)
            np.testing.assert_array_equal(new[name][:, :2], before)
    assert changed == {"decoder.mlp.blocks.0.linear.covariate_weight", "decoder.logits.covariate_weight"}
    assert load(mapped, "dgd").model.encoder.z.shape == (mapped.n_obs, 3)


POSITIONS = {
    "behind the end": lambda x: np.r_[x[:-1], 4 * 60],
    "below zero": lambda x: np.r_[-1, x[1:]],
    "far below zero": lambda x: np.full_like(x, -(2**63)),
    "twice the same": lambda x: np.r_[x[0], x[0], x[2:]],
}


@pytest.mark.parametrize("spoiled", POSITIONS)
@pytest.mark.parametrize("fit", ["vega"], indirect=True)
def test_places_of_weights_that_are_none_are_refused(spoiled, fit):
    _, adata = fit
    adata = adata.copy()
    adata.uns["vega"]["state"]["decoder.position"] = POSITIONS[spoiled](adata.uns["vega"]["state"]["decoder.position"])
    with pytest.raises(ValueError, match="positions of weights"):
        load(adata, "vega")


@pytest.mark.parametrize("fit", ["vega"], indirect=True)
def test_latent_dimensions_that_no_weight_backs_are_refused(fit):
    """They would take memory for loadings that are not there."""
    _, adata = fit
    adata = adata.copy()
    spec = adata.uns["vega"]["spec"]
    adata.uns["vega"]["spec"] = spec.replace('"n_latent": 4, "n_links"', '"n_latent": 2147483647, "n_links"')
    assert adata.uns["vega"]["spec"] != spec
    with pytest.raises(ValueError, match="n_latent"):
        load(adata, "vega")
