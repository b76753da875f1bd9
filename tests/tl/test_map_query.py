"""New cells mapped to a reference: what is written, what stays, and what is said."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from fingerprint import fingerprint

import scanpy_scvi as sv
from scanpy_scvi.posterior import latent_moments
from scanpy_scvi.store import load
from scanpy_scvi.store.identity import weights_id

QUICK = {"max_epochs": 3, "n_hidden": 16, "n_latent": 3, "progress": False}
FAST = {"max_epochs": 2, "progress": False}


@pytest.fixture(scope="module")
def cells():
    """300 cells of three batches, four donors; do not change it."""
    adata = sv.datasets.simulate(n_cells=300, n_genes=60, n_batches=3, density=0.5)
    adata.obs["batch"] = adata.obs["batch"].astype(str)
    adata.obs["donor"] = [f"donor_{i % 4}" for i in range(adata.n_obs)]
    adata.obs["age"] = [20.0 + (7 * i) % 41 for i in range(adata.n_obs)]
    return adata


def fitted_reference(cells, **options):
    reference = cells[(cells.obs["batch"] != "batch_2").to_numpy()].copy()
    sv.tl.scvi(reference, **(QUICK | options))
    return reference


@pytest.fixture(scope="module")
def reference(cells):
    return fitted_reference(cells, batch_key="batch")


@pytest.fixture
def query(cells):
    return cells[(cells.obs["batch"] == "batch_2").to_numpy()].copy()


def encoded(adata, key="scvi"):
    fitted = load(adata, key)
    return latent_moments(fitted.model, fitted.read(adata), device=torch.device("cpu"))


def test_what_is_written(query, reference):
    before, untouched = fingerprint(query.X), fingerprint(reference)
    names = query.var_names.to_list()
    assert sv.tl.map_query(query, reference, **FAST) is None
    assert fingerprint(reference) == untouched
    assert fingerprint(query.X) == before
    assert query.var_names.to_list() == names
    assert set(query.obsm) == {"true_z", "X_scvi", "scvi_latent_var"}
    assert set(query.uns) == {"scvi", "scvi_mapping"}
    assert query.var["scvi_modelled"].all()
    assert query.var["scvi_dispersion"].equals(reference.var["scvi_dispersion"])
    mapping = query.uns["scvi_mapping"]
    assert mapping["reference_id"] == weights_id(reference.uns["scvi"])
    assert (mapping["n_genes"], mapping["n_genes_matched"], mapping["share_matched"]) == (60, 60, 1.0)
    assert mapping["new_batches"].tolist() == ["batch_2"]
    assert len(mapping["history"]["epoch"]) == 2
    assert query.uns["scvi"]["categories"]["batch_weights"].tolist()[2] == 0
    assert sv.get.history(query).equals(sv.get.history(reference))


def test_the_stored_model_gives_the_stored_latent(query, reference):
    sv.tl.map_query(query, reference, **FAST)
    assert np.array_equal(encoded(query).mean, query.obsm["X_scvi"])
    assert np.array_equal(encoded(query).var, query.obsm["scvi_latent_var"])


def test_known_batches_are_encoded_by_the_reference_itself(query, reference):
    query.obs["batch"] = ["batch_0", "batch_1"] * (query.n_obs // 2) + ["batch_0"] * (query.n_obs % 2)
    sv.tl.map_query(query, reference, progress=False)
    fitted = load(reference, "scvi")
    expected = latent_moments(fitted.model, fitted.on(query).read(query), device=torch.device("cpu"))
    assert np.array_equal(query.obsm["X_scvi"], expected.mean)
    assert weights_id(query.uns["scvi"]) == weights_id(reference.uns["scvi"])
    assert "history" not in query.uns["scvi_mapping"]
    assert query.uns["scvi_mapping"]["new_batches"].size == 0


COVARIATES = {"categorical_covariate_keys": ["donor"], "continuous_covariate_keys": ["age"]}
MODELS = {
    "batches": {"batch_key": "batch"},
    "no batches": {},
    "zinb, theta a batch, latent library": {
        "batch_key": "batch",
        "likelihood": "zinb",
        "dispersion": "gene-batch",
        "library": "latent",
    },
    "covariates": {"batch_key": "batch", **COVARIATES},
    "no batches, covariates": COVARIATES,
    "nothing encoded": {"batch_key": "batch", "encode_covariates": False, "dispersion": "gene-cell"},
    "peer": {"batch_key": "batch", "preset": "scvi-tools"},
}


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_results_of_the_reference_keep_their_bits(cells, query, options):
    """Together in one object under the query's model, which has room for a new batch and a new donor."""
    reference = fitted_reference(cells, **options)
    query.obs["donor"] = ["donor_new" if i % 2 else "donor_1" for i in range(query.n_obs)]
    sv.tl.map_query(query, reference, batch_key="batch", normalized=True, **FAST)
    assert query.uns["scvi_mapping"]["new_batches"].tolist() == ["batch_2"]
    if "batch_key" not in options:
        reference.obs["batch"] = "reference"
    both = ad.concat([reference, query])
    both.uns["scvi"] = query.uns["scvi"]
    latent = encoded(both)
    n = reference.n_obs
    for half, rows in ((reference, slice(None, n)), (query, slice(n, None))):
        assert np.array_equal(latent.mean[rows], half.obsm["X_scvi"])
        assert np.array_equal(latent.var[rows], half.obsm["scvi_latent_var"])
    sv.tl.normalized_expression(both)
    assert np.array_equal(both.layers["scvi_normalized"][:n], reference.layers["scvi_normalized"])
    assert np.array_equal(both.layers["scvi_normalized"][n:], query.layers["scvi_normalized"])


def test_a_new_batch_learns_and_a_known_one_does_not_suffer(cells, query, reference):
    """With both kinds in one query, the known ones are where they would be alone."""
    mixed = ad.concat([query, cells[(cells.obs["batch"] == "batch_0").to_numpy()][:40]])
    alone = mixed[query.n_obs :].copy()
    sv.tl.map_query(mixed, reference, **FAST)
    sv.tl.map_query(alone, reference, **FAST)
    assert np.array_equal(mixed.obsm["X_scvi"][query.n_obs :], alone.obsm["X_scvi"])
    forward = query.copy()
    sv.tl.map_query(forward, reference, update_weights=False)
    assert not np.allclose(forward.obsm["X_scvi"], mixed.obsm["X_scvi"][: query.n_obs])


def test_columns_that_are_fitted_describe_the_counts_better(query, reference):
    elbo = []
    for update in (False, True):
        mapped = query.copy()
        sv.tl.map_query(mapped, reference, update_weights=update, progress=False)
        sv.tl.log_likelihood(mapped, n_samples=20)
        elbo.append(mapped.obs["scvi_log_likelihood"].mean())
    assert elbo[1] > elbo[0]


def test_forward_only_says_so(query, reference, capsys):
    sv.tl.map_query(query, reference, update_weights=False)
    assert "100 of 100 cells have a batch or category that the reference does not know" in capsys.readouterr().err
    assert "history" not in query.uns["scvi_mapping"]


def test_few_new_cells_are_not_learned_from(query, reference, capsys):
    few = query[:5].copy()
    sv.tl.map_query(few, reference, progress=False)
    assert "fewer than 10 cells have them" in capsys.readouterr().err
    assert np.isfinite(few.obsm["X_scvi"]).all()


def test_the_same_seed_gives_the_same_bits(query, reference):
    other = query.copy()
    for each in (query, other):
        sv.tl.map_query(each, reference, **FAST)
    assert fingerprint(query.obsm["X_scvi"]) == fingerprint(other.obsm["X_scvi"])
    sv.tl.map_query(other, reference, random_state=1, **FAST)
    assert fingerprint(query.obsm["X_scvi"]) != fingerprint(other.obsm["X_scvi"])


def test_a_copy_leaves_the_query(query, reference):
    before = fingerprint(query)
    mapped = sv.tl.map_query(query, reference, copy=True, **FAST)
    assert fingerprint(query) == before
    assert "X_scvi" in mapped.obsm


def test_a_view_becomes_an_object(cells, reference):
    view = cells[(cells.obs["batch"] == "batch_2").to_numpy()]
    sv.tl.map_query(view, reference, **FAST)
    assert not view.is_view
    assert "X_scvi" not in cells.obsm


def test_a_reference_without_counts_will_do(query, reference):
    slim = ad.AnnData(obs=reference.obs, var=reference.var[[]], obsm=reference.obsm, uns=reference.uns)
    other = query.copy()
    sv.tl.map_query(query, reference, **FAST)
    sv.tl.map_query(other, slim, **FAST)
    assert fingerprint(query.obsm["X_scvi"]) == fingerprint(other.obsm["X_scvi"])


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data will no longer be the default")  # anndata's own default
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_a_path_and_a_round_trip(query, reference, tmp_path, suffix):
    """The reference may be a file; a mapped query survives one, absent genes and new categories included."""
    path, out = tmp_path / f"reference.{suffix}", tmp_path / f"query.{suffix}"
    query = query[:, 5:].copy()
    other = query.copy()
    write = ad.AnnData.write_zarr if suffix == "zarr" else ad.AnnData.write_h5ad
    write(reference, path)
    sv.tl.map_query(query, path, **FAST)
    sv.tl.map_query(other, reference, **FAST)
    assert fingerprint(query.obsm["X_scvi"]) == fingerprint(other.obsm["X_scvi"])
    write(query, out)
    again = ad.read_zarr(out) if suffix == "zarr" else ad.read_h5ad(out)
    assert np.array_equal(encoded(again).mean, query.obsm["X_scvi"])
    assert again.uns["scvi_mapping"]["new_batches"].tolist() == ["batch_2"]
    assert again.uns["scvi_mapping"]["reference_id"] == query.uns["scvi_mapping"]["reference_id"]


def test_a_mapped_query_may_be_a_reference_in_turn(cells, query, reference):
    sv.tl.map_query(query, reference, **FAST)
    third = cells[:50].copy()
    third.obs["batch"] = "third"
    before = fingerprint(query)
    sv.tl.map_query(third, query, **FAST)
    assert fingerprint(query) == before
    assert third.uns["scvi_mapping"]["reference_id"] == query.uns["scvi_mapping"]["reference_id"]
    assert third.uns["scvi"]["categories"]["batch"].tolist() == ["batch_0", "batch_1", "batch_2", "third"]
    assert np.array_equal(encoded(third).mean, third.obsm["X_scvi"])


def test_a_later_fit_leaves_the_reference_behind(query, reference):
    sv.tl.map_query(query, reference, **FAST)
    sv.tl.map_query(query, reference, **FAST)  # again, over its own results
    sv.tl.scvi(query, **QUICK)
    assert "scvi_mapping" not in query.uns


def test_labels_matter_only_where_theta_depends_on_them(cells, query):
    plain = fitted_reference(cells, batch_key="batch", labels_key="label")
    unlabelled = query.copy()
    del unlabelled.obs["label"]
    sv.tl.map_query(unlabelled, plain, **FAST)
    assert np.array_equal(encoded(unlabelled).mean, unlabelled.obsm["X_scvi"])
    strict = fitted_reference(cells, batch_key="batch", labels_key="label", dispersion="gene-label")
    with pytest.raises(KeyError, match=r"`query.obs` has no column 'label', which the reference was fitted with"):
        sv.tl.map_query(unlabelled, strict, **FAST)
    sv.tl.map_query(query, strict, **FAST)
    assert query.varm["scvi_dispersion"].shape == (60, 3)
    query.obs["label"] = "unheard of"
    with pytest.raises(ValueError, match="which the model has not seen"):
        sv.tl.map_query(query, strict, **FAST)


def test_size_factors_and_continuous_covariates_have_the_scale_of_the_reference(cells, query):
    options = {"size_factor_key": "size", "continuous_covariate_keys": ["age"]}
    whole = cells.copy()
    whole.obs["size"] = np.asarray(whole.X.sum(1)).ravel()
    reference = fitted_reference(whole, batch_key="batch", **options)
    query.obs["size"] = whole.obs["size"]
    sv.tl.map_query(query, reference, **FAST)
    scales = ("continuous_mean", "continuous_sd", "log_size_factor_offset")
    for name in scales:
        assert np.array_equal(query.uns["scvi"]["categories"][name], reference.uns["scvi"]["categories"][name])
    table = load(query, "scvi").read(query)
    ages = reference.obs["age"]
    np.testing.assert_allclose(table.continuous[:, 0], (query.obs["age"] - ages.mean()) / ages.std(ddof=0), rtol=1e-5)


def test_missing_genes_are_told_and_left_out(query, reference, capsys):
    few = query[:, np.random.default_rng(0).permutation(60)[:40]].copy()
    few.X = few.X.tocsr()
    sv.tl.map_query(few, reference, normalized=True, **FAST)
    said = capsys.readouterr().err
    assert "40 of the model's 60 genes (66.7%) are in the query" in said
    assert "Below 80 % cells may be misplaced" in said
    assert few.var["scvi_modelled"].all()
    assert np.isfinite(few.layers["scvi_normalized"]).all()
    assert set(few.uns["scvi"]["absent_genes"]) == set(query.var_names) - set(few.var_names)
    mapping = few.uns["scvi_mapping"]
    assert (mapping["n_genes"], mapping["n_genes_matched"]) == (60, 40)
    full = few.X.toarray().sum(1)
    np.testing.assert_allclose(np.exp(load(few, "scvi").read(few).log_total), full, rtol=1e-5)


def test_other_genes_of_the_model_may_not_go_missing(query, reference):
    few = query[:, :40].copy()
    sv.tl.map_query(few, reference, **FAST)
    with pytest.raises(KeyError, match=r"1 of the model's 60 genes are not in `adata.var_names` \(first: 'gene_0'\)"):
        sv.tl.normalized_expression(few[:, 1:].copy())


def test_nearly_all_genes_is_a_milder_warning(query, reference, capsys):
    sv.tl.map_query(query[:, 1:].copy(), reference, **FAST)
    said = capsys.readouterr().err
    assert "59 of the model's 60 genes" in said
    assert "misplaced" not in said


def test_symbols_in_a_column(query, reference):
    renamed = query[:, ::-1].copy()
    renamed.var["symbol"] = renamed.var_names.to_list()
    renamed.var_names = [f"ENSG{i}" for i in range(renamed.n_vars)]
    with pytest.raises(ValueError, match="Pass `gene_symbols='symbol'`, where 60 are"):
        sv.tl.map_query(renamed, reference, **FAST)
    sv.tl.map_query(renamed, reference, gene_symbols="symbol", **FAST)
    sv.tl.map_query(query, reference, **FAST)
    assert np.array_equal(renamed.obsm["X_scvi"], query.obsm["X_scvi"])
    assert np.array_equal(encoded(renamed).mean, renamed.obsm["X_scvi"])
    sv.tl.rank_genes_groups(renamed, "label", n_samples=50)
    assert set(sv.get.rank_genes_groups_df(renamed)["names"]) == set(renamed.var_names)


def test_a_layer_of_counts(query, reference):
    other = query.copy()
    other.layers["counts"] = other.X.copy()
    other.X = np.log1p(other.X)
    sv.tl.map_query(query, reference, **FAST)
    sv.tl.map_query(other, reference, layer="counts", **FAST)
    assert np.array_equal(query.obsm["X_scvi"], other.obsm["X_scvi"])
    assert np.array_equal(encoded(other).mean, other.obsm["X_scvi"])


def drop_batch(query):
    del query.obs["batch"]


def empty_cell(query):
    query.X.data[query.X.indptr[3] : query.X.indptr[4]] = 0


def logged(query):
    query.X = query.X * 0.5


def foreign(query):
    query.obsm["X_scvi"] = np.zeros((query.n_obs, 2))


def foreign_mapping(query):
    query.uns["scvi_mapping"] = {"what": 1}


@pytest.mark.parametrize(
    ("spoil", "options", "error", "words"),
    [
        (drop_batch, {}, KeyError, r"no column 'batch', which names the batches of the reference. Name that"),
        (None, {"batch_key": "Batch"}, KeyError, "Did you mean 'batch'"),
        (empty_cell, {}, ValueError, "1 of 100 cells have no counts"),
        (logged, {}, ValueError, "non-integer"),
        (foreign, {}, ValueError, "was not written by scanpy_scvi.*'scvi'.*Rename or delete it first"),
        (foreign_mapping, {}, ValueError, "was not written by `map_query`"),
        (None, {"key": "other"}, KeyError, "holds no fitted model. Fits are stored under 'scvi'"),
        (None, {"max_epochs": 0}, ValueError, "`max_epochs` is 0"),
        (None, {"update_weights": "yes"}, ValueError, "`update_weights` is 'yes'"),
        (None, {"layer": "counts"}, KeyError, "'counts' was not found in `adata.layers`"),
        (None, {"device": "abacus"}, ValueError, "`device` is 'abacus'"),
    ],
)
def test_what_cannot_be_mapped_is_refused_and_left_alone(query, reference, spoil, options, error, words):
    if spoil is not None:
        spoil(query)
    before = fingerprint(query)
    with pytest.raises(error, match=words):
        sv.tl.map_query(query, reference, **options)
    assert fingerprint(query) == before


def test_an_error_while_fitting_leaves_the_query(query, reference, monkeypatch):
    from scanpy_scvi.tl import _map_query

    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(_map_query, "learn", stop)
    before = fingerprint(query), fingerprint(reference)
    with pytest.raises(KeyboardInterrupt):
        sv.tl.map_query(query, reference, **FAST)
    assert (fingerprint(query), fingerprint(reference)) == before


def test_a_column_of_another_name(query, reference):
    query.obs["plate"] = pd.Categorical(["p1", "batch_1"] * 50)
    sv.tl.map_query(query, reference, batch_key="plate", **FAST)
    assert query.uns["scvi_mapping"]["new_batches"].tolist() == ["p1"]
    assert query.uns["scvi"]["params"]["batch_key"] == "plate"
    assert np.array_equal(encoded(query).mean, query.obsm["X_scvi"])


@pytest.mark.parametrize("update_weights", [True, False])
def test_shallow_cells_are_where_they_would_be_if_deep(cells, update_weights):
    """The query has a third of its counts; the scale undoes that, and lies in the model that is stored."""
    reference = fitted_reference(cells, max_epochs=60)
    deep = cells[(cells.obs["batch"] == "batch_2").to_numpy()].copy()
    shallow = deep.copy()
    shallow.X = np.random.default_rng(0).binomial(np.asarray(deep.X.toarray(), int), 1 / 3).astype(np.float32)
    shallow = shallow[shallow.X.sum(1) > 0].copy()
    sv.tl.map_query(shallow, reference, batch_key="batch", update_weights=False)
    scale = shallow.uns["scvi"]["state"]["encoder.log_input_scale"]
    assert scale[0] == 0
    depth = np.log(np.asarray(reference.X.sum(1)).mean() / shallow.X.sum(1).mean())
    assert scale[1] == pytest.approx(depth, abs=0.35)
    fitted = load(reference, "scvi")
    target = latent_moments(fitted.model, fitted.on(deep).read(deep), device=torch.device("cpu")).mean
    target = target[deep.obs_names.get_indexer(shallow.obs_names)]
    raw = latent_moments(fitted.model, fitted.on(shallow).read(shallow), device=torch.device("cpu")).mean
    sv.tl.map_query(shallow, reference, batch_key="batch", update_weights=update_weights, progress=False)
    away = [np.square(z - target).sum(1).mean() for z in (shallow.obsm["X_scvi"], raw)]
    assert away[0] < away[1]


def test_a_reference_of_an_earlier_version_has_no_depth(query, reference):
    del (older := reference.copy()).uns["scvi"]["depth"]
    sv.tl.map_query(query, older, **FAST)
    assert query.uns["scvi"]["state"]["encoder.log_input_scale"].tolist() == [0, 0, 0]
    assert "depth" not in query.uns["scvi"]


def test_a_depth_that_cannot_be_is_refused(query, reference):
    spoilt = reference.copy()
    spoilt.uns["scvi"]["depth"] = np.full(4, np.nan)
    with pytest.raises(ValueError, match="'depth'"):
        sv.tl.map_query(query, spoilt, **FAST)
    assert "scvi" not in query.uns


def test_torch_draws_on_as_if_nothing_had_been_mapped(query, reference):
    state = torch.random.get_rng_state()
    sv.tl.map_query(query, reference, **FAST)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_cells_with_counts_in_other_genes_alone(query, reference):
    """Advice that helps: there is no mask here, and `filter_cells` would keep such a cell."""
    query.var_names = [f"other_{i}" if i < 5 else name for i, name in enumerate(query.var_names)]
    counts = query.X.toarray()
    counts[3], counts[3, 0] = 0, 7
    query.X = counts
    with pytest.raises(ValueError, match=r"no counts in the modelled genes .*\. Remove them\.$"):
        sv.tl.map_query(query, reference, **FAST)


def test_no_cells_or_the_reference_itself(query, reference):
    with pytest.raises(ValueError, match="no cells"):
        sv.tl.map_query(query[:0].copy(), reference, **FAST)
    untouched = fingerprint(reference)
    with pytest.raises(ValueError, match="same object"):
        sv.tl.map_query(reference, reference, **FAST)
    again = sv.tl.map_query(reference, reference, copy=True, **FAST)
    assert np.array_equal(again.obsm["X_scvi"], reference.obsm["X_scvi"])
    assert fingerprint(reference) == untouched
