import anndata as ad
import numpy as np
import pandas as pd
import pytest
from fingerprint import fingerprint

import scanpy_scvi as sv

TYPES = ["label_0", "label_1", "label_2", "label_3"]
ASK = {"source": "batch_0", "target": "batch_1", "cell_type_key": "label"}
FEW = {"max_epochs": 4, "n_latent": 3, "progress": False}


@pytest.fixture(scope="module")
def cells():
    """240 cells of four types; the two batches are the conditions, and label_3 has none under the second."""
    adata = sv.datasets.simulate(n_cells=240, n_genes=60, n_labels=4, density=0.5)
    adata = adata[~((adata.obs["label"] == "label_3") & (adata.obs["batch"] == "batch_1"))].copy()
    adata.obs["donor"] = [f"donor_{i % 3}" for i in range(adata.n_obs)]
    return adata


@pytest.fixture(scope="module")
def fits(cells):
    """Two linear fits and one that is not, none of which is given the condition; do not change them."""
    adata = cells.copy()
    sv.tl.autoencoder(adata, n_layers=0, likelihood="mse", **FEW)
    sv.tl.ldvae(adata, n_hidden=16, **FEW)
    sv.tl.scvi(adata, "donor", n_hidden=16, **FEW)
    return adata


def mean_of(adata, key, label, batch):
    chosen = (adata.obs["label"] == label) & (adata.obs["batch"] == batch)
    return adata.obsm[f"X_{key}"][chosen.to_numpy()].mean(0, dtype=np.float64)


def sizes(adata, batch, types=TYPES):
    return [int(((adata.obs["label"] == t) & (adata.obs["batch"] == batch)).sum()) for t in types]


def shift_of(adata, key, types=TYPES[:3]):
    return np.mean([mean_of(adata, key, t, "batch_1") - mean_of(adata, key, t, "batch_0") for t in types], axis=0)


def test_a_linear_autoencoder_changes_by_its_loadings_times_the_shift(fits):
    """In every cell alike, on the scale of log-normalised counts, which is named."""
    new = sv.tl.predict_perturbation(fits, "batch", key="ae", **ASK)
    expected = fits.varm["ae_loadings"].astype(np.float64) @ shift_of(fits, "ae")
    np.testing.assert_allclose(new.X - new.layers["source"], np.tile(expected, (new.n_obs, 1)), rtol=1e-3, atol=1e-5)
    decoded = fits.obsm["X_ae"] @ fits.varm["ae_loadings"].T + fits.uns["ae"]["state"]["decoder.logits.bias"]
    np.testing.assert_allclose(new.layers["source"], decoded[fits.obs["batch"] == "batch_0"], rtol=1e-4, atol=1e-5)
    total = np.median(np.asarray(fits.X.sum(1)))
    found = new.uns["ae_prediction"]
    assert found["scale"].startswith("log(1 + counts per ")
    assert float(found["scale"].split()[-1].rstrip(")").replace(",", "")) == pytest.approx(total, rel=1e-5)
    np.testing.assert_allclose(found["shift"], shift_of(fits, "ae"), rtol=1e-4, atol=1e-6)
    assert found["method"] == "latent_shift"


def test_the_logits_of_a_linear_model_of_counts_change_by_its_loadings_times_the_shift(fits):
    new = sv.tl.predict_perturbation(fits, "batch", key="ldvae", library_size=500, **ASK)
    change = np.log(new.X) - np.log(new.layers["source"])
    expected = fits.varm["ldvae_loadings"].astype(np.float64) @ shift_of(fits, "ldvae")
    centred = change - change.mean(1, keepdims=True)
    np.testing.assert_allclose(centred, np.tile(expected - expected.mean(), (new.n_obs, 1)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(new.X.sum(1), 500, rtol=1e-5)
    assert new.uns["ldvae_prediction"]["scale"] == "counts per 500"


def test_cells_keep_their_batch_and_get_the_shift(fits):
    """Where z is that of the source, expression is the normalized expression of the cells in their own batch."""
    new = sv.tl.predict_perturbation(fits, "batch", **ASK)
    source = (fits.obs["batch"] == "batch_0").to_numpy()
    expected = sv.tl.normalized_expression(fits, transform_batch="observed", inplace=False)
    np.testing.assert_allclose(new.layers["source"], expected[source], rtol=1e-5)
    np.testing.assert_allclose(
        new.obsm["X_scvi"] - fits.obsm["X_scvi"][source], [shift_of(fits, "scvi")] * len(new), atol=1e-6
    )
    assert new.obs_names.tolist() == [f"{name}_predicted" for name in fits.obs_names[source]]
    assert new.obs["predicted"].all()
    assert (new.obs["batch"] == "batch_1").all()
    assert new.obs["batch"].dtype == fits.obs["batch"].dtype
    pd.testing.assert_series_equal(new.obs["donor"], fits.obs["donor"][source].set_axis(new.obs_names))
    assert len(ad.concat([fits, new]).obs_names.unique()) == fits.n_obs + new.n_obs


def test_a_type_without_cells_under_the_target_is_predicted_from_the_others(fits):
    new = sv.tl.predict_perturbation(fits, "batch", cell_types="label_3", **ASK)
    assert (new.obs["label"] == "label_3").all()
    assert new.n_obs == (fits.obs["label"] == "label_3").sum()
    found = new.uns["scvi_prediction"]
    assert found["types"]["cell_type"].tolist() == TYPES[:3]
    assert found["types"]["n_source"].tolist() == sizes(fits, "batch_0", TYPES[:3])
    np.testing.assert_allclose(found["shift"], found["type_shifts"].mean(0), rtol=1e-5)
    np.testing.assert_allclose(found["types"]["length"], np.linalg.norm(found["type_shifts"], axis=1), rtol=1e-5)


def test_types_may_be_left_out_of_the_shift(fits):
    new = sv.tl.predict_perturbation(fits, "batch", cell_types=["label_0"], shift_types=TYPES[1:], **ASK)
    found = new.uns["scvi_prediction"]
    assert found["types"]["cell_type"].tolist() == TYPES[1:3]
    np.testing.assert_allclose(found["shift"], shift_of(fits, "scvi", TYPES[1:3]), rtol=1e-4, atol=1e-6)


def test_the_table_has_the_means_and_what_they_may_be_off_by(fits):
    for key in ("ae", "scvi"):
        new = sv.tl.predict_perturbation(fits, "batch", key=key, **ASK)
        table = new.uns[f"{key}_prediction"]["genes"]
        assert len(table) == 4 * fits.n_vars
        for label in ("label_0", "label_3"):
            one, mine = table[table["cell_type"] == label], (new.obs["label"] == label).to_numpy()
            assert one["names"].tolist() == new.var_names.tolist()
            np.testing.assert_allclose(one["predicted"], new.X[mine].mean(0), rtol=1e-5)
            np.testing.assert_allclose(one["source"], new.layers["source"][mine].mean(0), rtol=1e-5)
        np.testing.assert_allclose(table["difference"], table["predicted"] - table["source"])
        assert (table["se"] > 0).all()
        assert ((table["low"] < table["predicted"]) & (table["predicted"] < table["high"])).all()
    w = fits.varm["ae_loadings"].astype(np.float64)
    own = [w @ (mean_of(fits, "ae", t, "batch_1") - mean_of(fits, "ae", t, "batch_0")) for t in TYPES[:3]]
    table = sv.tl.predict_perturbation(fits, "batch", key="ae", **ASK).uns["ae_prediction"]["genes"]
    np.testing.assert_allclose(
        table["se"][: fits.n_vars], np.std(own, axis=0, ddof=1) / np.sqrt(3), rtol=1e-3, atol=1e-6
    )


def test_resampling_has_the_bias_of_composition(fits):
    """On average over seeds, the prediction is pulled towards the other types by a fourth of the distance."""
    draws = [
        sv.tl.predict_perturbation(
            fits,
            "batch",
            cell_types="label_3",
            balance="resample",
            random_state=seed,
            genes=["gene_0"],
            key="ae",
            **ASK,
        )
        for seed in range(30)
    ]
    shifts = np.stack([draw.uns["ae_prediction"]["shift"] for draw in draws]).astype(np.float64)
    others = np.mean([mean_of(fits, "ae", t, "batch_0") for t in TYPES[:3]], axis=0)
    bias = (others - mean_of(fits, "ae", "label_3", "batch_0")) / 4
    error = shifts.std(0, ddof=1) / np.sqrt(len(shifts))
    assert (np.abs(shifts.mean(0) - shift_of(fits, "ae") - bias) < 4 * error).all()
    assert np.linalg.norm(bias / error) > 10
    assert draws[0].uns["ae_prediction"]["types"]["n_target"].tolist() == sizes(fits, "batch_1")


def test_without_types_all_cells_are_one(fits):
    new = sv.tl.predict_perturbation(fits, "batch", source="batch_0", target="batch_1")
    z, batch = fits.obsm["X_scvi"].astype(np.float64), fits.obs["batch"].to_numpy()
    found = new.uns["scvi_prediction"]
    np.testing.assert_allclose(found["shift"], z[batch == "batch_1"].mean(0) - z[batch == "batch_0"].mean(0), atol=1e-5)
    assert found["genes"]["cell_type"].unique().tolist() == ["all"]
    assert "type_shifts" not in found
    assert (found["genes"]["se"] > 0).all()


def test_cells_without_a_type_are_neither_learned_from_nor_predicted(fits):
    adata = fits.copy()
    adata.obs["label"] = adata.obs["label"].astype(object)
    adata.obs.loc[adata.obs["label"] == "label_0", "label"] = np.nan
    new = sv.tl.predict_perturbation(adata, "batch", **ASK)
    assert new.n_obs == sum(sizes(fits, "batch_0", TYPES[1:]))
    np.testing.assert_allclose(new.uns["scvi_prediction"]["shift"], shift_of(fits, "scvi", TYPES[1:3]), atol=1e-5)


@pytest.mark.parametrize("method", ["auto", "transform_batch"])
def test_a_condition_that_the_decoder_is_given_is_exchanged_there(cells, method):
    adata = cells.copy()
    sv.tl.scvi(adata, "batch", n_hidden=16, **FEW)
    new = sv.tl.predict_perturbation(adata, "batch", method=method, **ASK)
    source = (adata.obs["batch"] == "batch_0").to_numpy()
    for found, batch in ((new.X, "batch_1"), (new.layers["source"], "batch_0")):
        expected = sv.tl.normalized_expression(adata, transform_batch=batch, inplace=False)
        np.testing.assert_allclose(found, expected[source], rtol=1e-5)
    np.testing.assert_array_equal(new.obsm["X_scvi"], adata.obsm["X_scvi"][source])
    found = new.uns["scvi_prediction"]
    assert found["method"] == "transform_batch"
    assert "shift" not in found
    assert list(found["genes"]) == ["cell_type", "names", "source", "predicted", "difference"]
    with pytest.raises(ValueError, match="holds no shift"):
        sv.tl.predict_perturbation(adata, "batch", method="latent_shift", **ASK)


def test_batches_within_conditions_tell_the_condition(cells):
    """All batches of the target take part, in proportion to their cells."""
    adata = cells.copy()
    adata.obs["sample"] = adata.obs["batch"].astype(str) + "_" + np.where(np.arange(adata.n_obs) % 3, "a", "b")
    sv.tl.scvi(adata, "sample", n_hidden=16, **FEW)
    new = sv.tl.predict_perturbation(adata, "batch", **ASK)
    source = (adata.obs["batch"] == "batch_0").to_numpy()
    counts = adata.obs["sample"][~source].value_counts(normalize=True)
    assert len(counts) == 2
    tables = [sv.tl.normalized_expression(adata, transform_batch=b, inplace=False) * w for b, w in counts.items()]
    np.testing.assert_allclose(new.X, sum(tables)[source], rtol=1e-5)


def test_a_covariate_is_exchanged_too(cells):
    adata = cells.copy()
    sv.tl.scvi(adata, categorical_covariate_keys=["donor", "batch"], encode_covariates=False, n_hidden=16, **FEW)
    new = sv.tl.predict_perturbation(adata, "batch", **ASK)
    exchanged = adata.copy()
    exchanged.obs["batch"] = pd.Categorical(["batch_1"] * adata.n_obs, categories=["batch_0", "batch_1"])
    expected = sv.tl.normalized_expression(exchanged, inplace=False)
    np.testing.assert_allclose(new.X, expected[(adata.obs["batch"] == "batch_0").to_numpy()], rtol=1e-5)


def test_a_continuous_condition_is_refused(cells):
    adata = cells.copy()
    adata.obs["dose"] = (adata.obs["batch"] == "batch_1").astype(float)
    sv.tl.scvi(adata, continuous_covariate_keys=["dose"], n_hidden=16, **FEW)
    with pytest.raises(ValueError, match="continuous covariate"):
        sv.tl.predict_perturbation(adata, "dose", source="0.0", target="1.0")


def test_the_object_stays_as_it_is_and_the_same_seed_gives_the_same_bits(fits):
    before = fingerprint(fits)
    options = ASK | {"cell_types": ["label_3"], "balance": "resample"}
    first, again, other = (sv.tl.predict_perturbation(fits, "batch", random_state=s, **options) for s in (1, 1, 2))
    assert fingerprint(first) == fingerprint(again)
    assert (first.X != other.X).any()
    assert fingerprint(fits) == before


@pytest.mark.filterwarnings("ignore:Writing zarr v2:UserWarning")  # anndata 0.12 on its own default
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_files_and_slim_objects(fits, tmp_path, suffix):
    """The prediction survives a file; one from a reloaded file has the same bits, one without counts nearly."""

    def write(adata, name):
        getattr(adata, f"write_{suffix}")(tmp_path / f"{name}.{suffix}")
        return getattr(ad, f"read_{suffix}")(tmp_path / f"{name}.{suffix}")

    options = ASK | {"cell_types": ["label_3", "label_1"], "shift_types": TYPES[:3]}
    new = sv.tl.predict_perturbation(fits, "batch", **options)
    back = write(new, "new")
    np.testing.assert_array_equal(back.X, new.X)
    for name, value in new.uns["scvi_prediction"].items():
        found = back.uns["scvi_prediction"][name]
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(found, value)
        elif isinstance(value, np.ndarray):
            np.testing.assert_array_equal(found, value)
    assert back.uns["scvi_prediction"]["params"]["cell_types"].tolist() == ["label_3", "label_1"]
    if suffix == "zarr":
        return
    again = sv.tl.predict_perturbation(write(fits, "fits"), "batch", **options)
    np.testing.assert_array_equal(again.X, new.X)
    small = write(sv.tl.slim(fits, key=["scvi", "ae", "ldvae"], copy=True), "slim")
    for key in ("scvi", "ae"):
        whole = sv.tl.predict_perturbation(fits, "batch", key=key, **options)
        kept = sv.tl.predict_perturbation(small, "batch", key=key, **options)
        np.testing.assert_allclose(kept.X, whole.X, rtol=1e-4, atol=1e-6)


def test_genes_and_scales(fits):
    genes = ["gene_7", "gene_2"]
    whole, some = (sv.tl.predict_perturbation(fits, "batch", genes=g, **ASK) for g in (None, genes))
    np.testing.assert_allclose(some.X, whole[:, genes].X, rtol=1e-6)
    assert some.var_names.tolist() == genes
    assert some.uns["scvi_prediction"]["genes"]["names"].unique().tolist() == genes
    shares = sv.tl.predict_perturbation(fits, "batch", key="ae", library_size=1.0, **ASK)
    np.testing.assert_allclose(shares.X.sum(1), 1, rtol=1e-5)
    assert shares.uns["ae_prediction"]["scale"] == "counts per 1"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"source": "batch_9"}, KeyError, "has the conditions 'batch_0', 'batch_1'"),
        ({"target": "batch_9"}, KeyError, "`target` is 'batch_9'"),
        ({"target": "batch_0"}, ValueError, "two conditions"),
        ({"cell_type_key": "lable"}, KeyError, "Did you mean 'label'"),
        ({"cell_types": ["label_9"]}, KeyError, "has the types 'label_0'"),
        ({"cell_types": []}, KeyError, "has the types"),
        ({"cell_types": ["label_0"], "cell_type_key": None}, ValueError, "without `cell_type_key`"),
        (
            {"cell_types": ["label_3"], "source": "batch_1", "target": "batch_0"},
            ValueError,
            "no cells of the types 'label_3'",
        ),
        ({"shift_types": ["label_3"]}, ValueError, "label_3: 28 and 0"),
        ({"shift_types": ["label_3"], "balance": "resample"}, ValueError, "label_3: 28 and 0"),
        ({"min_cells": 99}, ValueError, "99 cells under both"),
        ({"method": "shift"}, ValueError, "'latent_shift'"),
        ({"method": "transform_batch"}, ValueError, "Use `method='latent_shift'`"),
        ({"balance": "none"}, ValueError, "'within', 'resample'"),
        ({"min_cells": 0}, ValueError, "min_cells"),
        ({"library_size": 0}, ValueError, "library_size"),
        ({"genes": ["nothing"]}, KeyError, "not modelled"),
        ({"key": "nobody"}, KeyError, "Fits are stored under"),
    ],
)
def test_refuses_with_a_reason(fits, options, error, words):
    with pytest.raises(error, match=words):
        sv.tl.predict_perturbation(fits, "batch", **ASK | options)


def test_a_known_response_is_found_in_a_type_that_never_had_it():
    """Five genes rise eightfold in every type: in the type held out they come first, close to where they should be."""
    adata = sv.datasets.simulate(n_cells=900, n_genes=80, n_labels=4, batch_effect=0.0, density=0.5)
    rng = np.random.default_rng(0)
    x, raised = adata.X.toarray(), [f"gene_{i}" for i in np.argsort(-adata.X.toarray().mean(0))[5:10]]
    stim = (adata.obs["batch"] == "batch_1").to_numpy()
    places = adata.var_names.get_indexer(raised)
    x[np.ix_(stim, places)] = rng.poisson(8 * x[np.ix_(stim, places)])
    adata = ad.AnnData(x, obs=adata.obs, var=adata.var)
    held_out = (adata.obs["label"] == "label_2") & stim
    truth = np.log2((x[held_out][:, places] / x[held_out].sum(1, keepdims=True)).mean(0) * 1e4)
    adata = adata[~held_out].copy()
    sv.tl.scvi(adata, max_epochs=40, n_hidden=64, normalized=False, progress=False)
    new = sv.tl.predict_perturbation(adata, "batch", cell_types="label_2", **ASK)
    table = new.uns["scvi_prediction"]["genes"].set_index("names")
    change = np.log2(table["predicted"] / table["source"])
    assert set(change.sort_values().index[-5:]) == set(raised)
    assert np.median(np.abs(np.log2(table.loc[raised, "predicted"].to_numpy()) - truth)) < 0.7
