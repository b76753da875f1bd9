"""Penalties in fits: how one asks for them, what is recorded, and what they do."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from fingerprint import fingerprint
from questions import ask_everything
from sklearn.neighbors import NearestNeighbors

import scanpy_scvi as sv
from scanpy_scvi.modules.spec import ModelSpec
from scanpy_scvi.store.load import load
from scanpy_scvi.tl._penalties import penalty_parts

QUICK = {"max_epochs": 3, "n_hidden": 16, "n_latent": 3, "progress": False}
TSNE = ("tsne", {"perplexity": 5.0, "n_pcs": 10})
FITS = {
    "scvi": lambda adata, penalties: sv.tl.scvi(adata, "batch", **QUICK, penalties=penalties),
    "scvae": lambda adata, penalties: sv.tl.scvae(adata, "batch", n_components=[2, 3], **QUICK, penalties=penalties),
    "dgd": lambda adata, penalties: sv.tl.dgd(adata, "batch", n_components=3, **QUICK, penalties=penalties),
    "ldvae": lambda adata, penalties: sv.tl.ldvae(adata, "batch", **QUICK, penalties=penalties),
}


def test_names_and_pairs():
    mmd, entropy = penalty_parts(("mmd", ("entropy", {"weight": np.float32(0.5)})))
    assert mmd.name == "mmd"
    assert set(mmd.options) == {"weight", "n_widths"}  # all of them, so that later defaults change nothing
    assert (entropy.name, dict(entropy.options)) == ("entropy", {"weight": 0.5})
    assert penalty_parts("mmd") == (mmd,)
    assert penalty_parts(()) == ()


@pytest.mark.parametrize("name", FITS)
def test_any_model_takes_them_and_records_them(name, adata, tmp_path):
    penalties = ("mmd", TSNE) if name == "ldvae" else ("mmd", TSNE, ("entropy", {"weight": 0.5}))
    FITS[name](adata, penalties)
    entry = adata.uns[name]
    assert entry["params"]["penalties"]["tsne"]["perplexity"] == 5.0
    assert [part.name for part in ModelSpec.from_json(entry["spec"]).penalties] == [
        p if isinstance(p, str) else p[0] for p in penalties
    ]
    assert np.isfinite(entry["history"]["penalty"]).all()
    assert entry["history"]["penalty"].any()
    assert "penalty" in sv.get.history(adata, name)
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    assert back.uns[name]["params"]["penalties"]["mmd"] == entry["params"]["penalties"]["mmd"]
    assert load(back, name).spec == load(adata, name).spec
    ask_everything(back, name)


def test_a_fit_without_is_what_it_was(adata, fitted):
    """To the bit, and nothing of penalties is stored."""
    sv.tl.scvi(adata, "batch", **QUICK, penalties=())
    np.testing.assert_array_equal(adata.obsm["X_scvi"], fitted.obsm["X_scvi"])
    assert "penalties" not in adata.uns["scvi"]["params"]
    assert "penalty" not in adata.uns["scvi"]["history"]
    assert "penalties" not in adata.uns["scvi"]["spec"]


def test_the_same_seed_gives_the_same_bits(adata):
    found = []
    for _ in range(2):
        sv.tl.scvi(adata, "batch", **QUICK, penalties=("mmd", "entropy", TSNE))
        found.append(adata.obsm["X_scvi"].copy())
    np.testing.assert_array_equal(*found)


def test_a_mapping_knows_nothing_of_them(adata):
    is_new = (adata.obs["batch"] == "batch_1").to_numpy()
    adata.obs["batch"] = np.where(is_new, "new", np.where(np.arange(adata.n_obs) % 4 < 2, "a", "b"))
    reference, query = adata[~is_new].copy(), adata[is_new].copy()
    sv.tl.scvi(reference, "batch", **QUICK, penalties=("mmd", ("tsne", {"perplexity": 3.0})))
    sv.tl.map_query(query, reference, max_epochs=2, progress=False)
    assert np.isfinite(query.obsm["X_scvi"]).all()
    assert "penalty" not in query.uns["scvi_mapping"]["history"]


@pytest.mark.parametrize(
    ("penalties", "options", "error", "words"),
    [
        (("nmd",), {}, ValueError, "'nmd', but one of 'mmd', 'entropy', 'tsne'"),
        ((3,), {}, TypeError, "names were expected, or pairs"),
        (("mmd", {"weight": 1.0}), {}, TypeError, "names were expected, or pairs"),
        (("mmd", ("mmd", {"weight": 1.0})), {}, ValueError, "comes twice"),
        ((("mmd", {"wait": 1.0}),), {}, TypeError, "has no option 'wait'.*It has 'weight'"),
        ((("mmd", {"weight": -1.0}),), {}, ValueError, "weight of a penalty is -1"),
        ((("mmd", {"n_widths": 1.5}),), {}, ValueError, "n_widths"),
        (("mmd",), {"batch_key": None}, ValueError, "there is only one. Pass `batch_key`"),
        ((("tsne", {"perplexity": 30.0}),), {"batch_size": 64}, ValueError, "should have 90 cells or more"),
    ],
)
def test_refuses(penalties, options, error, words, adata):
    before = fingerprint(adata)
    with pytest.raises(error, match=words):
        sv.tl.scvi(adata, **{"batch_key": "batch", **QUICK, **options}, penalties=penalties)
    assert fingerprint(adata) == before


def test_a_linear_decoder_has_no_hidden_layer(adata):
    with pytest.raises(ValueError, match="a linear decoder has none"):
        sv.tl.ldvae(adata, **QUICK, penalties=("entropy",))


# ---- what they do

LONGER = {"max_epochs": 40, "n_hidden": 32, "progress": False, "normalized": False}


@pytest.fixture(scope="module")
def shifted():
    """600 cells in two batches that differ in their composition by nothing but chance, and clearly in their genes."""
    return sv.datasets.simulate(n_cells=600, n_genes=100, n_batches=2, density=0.4, random_state=3)


def between_batches(adata, key):
    """Distance between the batches' means of z, in units of its standard deviation."""
    z, first = adata.obsm[f"X_{key}"], (adata.obs["batch"] == "batch_0").to_numpy()
    return np.linalg.norm((z[first].mean(0) - z[~first].mean(0)) / z.std(0))


def test_mmd_brings_batches_together(shifted):
    """Of a model that is not told the batches in any other way."""
    adata, apart = shifted.copy(), {"plain": 0.0, "priced": 0.0}
    options = {**LONGER, "n_latent": 5, "inject_covariates": False, "encode_covariates": False}
    prices = {"plain": (), "priced": (("mmd", {"weight": 300.0}),)}
    for seed in range(4):
        for name, penalties in prices.items():
            sv.tl.scvi(adata, "batch", **options, penalties=penalties, key_added=name, random_state=seed)
            apart[name] += between_batches(adata, name)
    assert apart["priced"] < 0.7 * apart["plain"], apart


def test_tsne_keeps_neighbours(shifted):
    adata = shifted.copy()
    counts = adata.X.toarray()
    x = np.log1p(counts / counts.sum(1, keepdims=True) * 1e3)
    near = NearestNeighbors(n_neighbors=20).fit(x).kneighbors(return_distance=False)
    kept = {}
    for key, penalties in {"plain": (), "priced": ("tsne",)}.items():
        sv.tl.scvi(adata, n_latent=2, **LONGER, penalties=penalties, key_added=key)
        found = NearestNeighbors(n_neighbors=20).fit(adata.obsm[f"X_{key}"]).kneighbors(return_distance=False)
        kept[key] = np.mean([len(set(a) & set(b)) / 20 for a, b in zip(near, found, strict=True)])
    assert kept["priced"] > 1.05 * kept["plain"], kept
