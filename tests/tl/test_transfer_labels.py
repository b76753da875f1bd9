import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scanpy_scvi as sv
from scanpy_scvi.metrics.neighbourhood import Kin, Space

COLORS = np.array(["#111111", "#222222", "#333333"], object)
CENTRES = {"B/naive": (0, 0, 0), "A": (8, 0, 0), "C": (0, 8, 0)}


def placed(labels, seed, space="abc"):
    """Cells at places in a latent space: all that the function needs."""
    rng = np.random.default_rng(seed)
    adata = ad.AnnData(obs=pd.DataFrame(index=[f"cell_{seed}_{i}" for i in range(len(labels))]))
    z = np.array([CENTRES.get(label, (0, 0, 40)) for label in labels]) + rng.normal(size=(len(labels), 3))
    adata.obsm["X_scvi"] = z.astype(np.float32)
    adata.uns["scvi_mapping"] = {"reference_id": space}
    adata.obs["truth"] = labels
    return adata


@pytest.fixture
def reference():
    adata = placed(list(CENTRES) * 60, 0)
    adata.obs["kind"] = pd.Categorical(adata.obs["truth"], categories=list(CENTRES))
    adata.obs["age"] = adata.obsm["X_scvi"][:, 0] * 2.0 + 5
    adata.uns["kind_colors"] = COLORS.copy()
    adata.obsm["X_umap"] = adata.obsm["X_scvi"][:, :2] * 3
    return adata


@pytest.fixture
def query():
    return placed(list(CENTRES) * 10 + ["new"] * 10, 1)


def test_labels_colours_and_confidence_come_from_the_reference(query, reference):
    sv.tl.transfer_labels(query, reference, "kind", probabilities=True)
    told = query.obs["kind_pred"]
    assert told.cat.categories.to_list() == list(CENTRES)
    known = (query.obs["truth"] != "new").to_numpy()
    assert (told[known].astype(str) == query.obs["truth"][known]).all()
    assert query.obs["kind_conf"].dtype == np.float32
    np.testing.assert_array_equal(query.uns["kind_pred_colors"], COLORS)
    probability = query.obsm["kind_prob"]
    np.testing.assert_allclose(probability.sum(1), 1, rtol=1e-6)
    np.testing.assert_array_equal(probability.argmax(1), told.cat.codes)
    np.testing.assert_allclose(probability.max(1), query.obs["kind_conf"], rtol=1e-6)
    assert list(query.uns["scvi_transfer"]["labels"]["kind"]["classes"]) == list(CENTRES)
    assert "kind" not in query.obs
    assert "kind_pred" not in reference.obs


def test_values_follow_their_formulas(query, reference):
    """Confidence, distance, mean and UMAP, from neighbours found independently."""
    sv.tl.transfer_labels(query, reference, ["kind", "age"], n_neighbors=7)
    space = Space(reference.obsm["X_scvi"], n_neighbors=7, random_state=0)
    found = space.index.of(space.place(query.obsm["X_scvi"]))
    kin = Kin.of(found)
    age, kind = reference.obs["age"].to_numpy(), reference.obs["kind"].cat.codes.to_numpy()
    first = kin.indices[0], kin.weights[0]
    shares = np.array([first[1][kind[first[0]] == c].sum() / (kind == c).sum() ** 0.25 for c in range(3)])
    np.testing.assert_allclose(query.obs["kind_conf"].iloc[0], shares.max() / shares.sum(), rtol=1e-6)
    np.testing.assert_allclose(query.obs["age_pred"].iloc[0], first[1] @ age[first[0]])
    s2 = first[1] @ (age[first[0]] - first[1] @ age[first[0]]) ** 2 / (1 - (first[1] ** 2).sum())
    np.testing.assert_allclose(query.obs["age_conf"].iloc[0], max(1 - s2 / age.var(ddof=1), 0), rtol=1e-5)
    np.testing.assert_allclose(query.obsm["X_umap"][0], first[1] @ reference.obsm["X_umap"][first[0]], rtol=1e-5)
    usual = np.median(space.index.own().distances.mean(1))
    np.testing.assert_allclose(query.obs["scvi_ref_dist"], found.distances.mean(1) / usual, rtol=1e-6)


def test_far_cells_are_unknown_and_only_with_a_threshold(query, reference):
    sv.tl.transfer_labels(query, reference, ["kind", "age"], unknown=0.02)
    new = (query.obs["truth"] == "new").to_numpy()
    entry = query.uns["scvi_transfer"]
    far = (query.obs["scvi_ref_dist"] > entry["threshold"]).to_numpy()
    assert far[new].all()
    assert far[~new].mean() < 0.1
    assert query.obs["kind_pred"].cat.categories.to_list() == [*CENTRES, "Unknown"]
    np.testing.assert_array_equal(query.obs["kind_pred"] == "Unknown", far)
    np.testing.assert_array_equal(query.obs["age_pred"].isna(), far)
    assert query.obs["kind_conf"].between(0, 1).all()
    assert len(query.uns["kind_pred_colors"]) == 4
    again = dict(zip(entry["thresholds"]["rate"], entry["thresholds"]["distance"], strict=True))
    assert again[0.02] == entry["threshold"]
    sv.tl.transfer_labels(query, reference, "kind")
    assert query.obs["kind_pred"].cat.categories.to_list() == list(CENTRES)
    assert "threshold" not in query.uns["scvi_transfer"]


def test_a_class_of_the_reference_may_be_called_unknown(query, reference):
    reference.obs["kind"] = reference.obs["kind"].cat.rename_categories({"C": "Unknown"})
    sv.tl.transfer_labels(query, reference, "kind", unknown=0.02)
    assert query.obs["kind_pred"].cat.categories.to_list() == ["B/naive", "A", "Unknown"]
    assert len(query.uns["kind_pred_colors"]) == 3
    assert (query.obs["kind_pred"][query.obs["truth"] == "new"] == "Unknown").all()


def test_cells_without_a_label_say_nothing(query, reference):
    """All cells of one kind lack it, so theirs is found among the others; the distance counts them."""
    sv.tl.transfer_labels(query, reference, "kind")
    before = query.obs["scvi_ref_dist"].copy()
    reference.obs.loc[reference.obs["truth"] == "A", ["kind", "age"]] = np.nan
    sv.tl.transfer_labels(query, reference, ["kind", "age"], probabilities=True)
    assert query.obs["kind_pred"].cat.categories.to_list() == ["B/naive", "C"]
    assert query.obsm["kind_prob"].shape[1] == 2
    np.testing.assert_array_equal(query.uns["kind_pred_colors"], COLORS[[0, 2]])
    assert query.obs[["kind_pred", "age_pred"]].notna().all(axis=None)
    np.testing.assert_array_equal(query.obs["scvi_ref_dist"], before)


def test_a_number_that_varies_little_among_neighbours_is_sure(query, reference):
    rng = np.random.default_rng(0)
    reference.obs["noise"] = rng.normal(size=reference.n_obs)
    sv.tl.transfer_labels(query, reference, ["age", "noise"])
    known = query.obs["truth"] != "new"
    assert query.obs["age_conf"][known].mean() > 0.9
    assert query.obs["noise_conf"][known].mean() < 0.4
    truth = query.obsm["X_scvi"][:, 0] * 2.0 + 5
    assert np.corrcoef(truth[known], query.obs["age_pred"][known])[0, 1] > 0.97


def test_the_querys_own_labels_and_embedding_are_kept(query, reference):
    query.obs["kind"] = "mine"
    query.obsm["X_umap"] = np.ones((query.n_obs, 2))
    sv.tl.transfer_labels(query, reference, "kind")
    assert (query.obs["kind"] == "mine").all()
    assert (query.obsm["X_umap"] == 1).all()
    del query.obsm["X_umap"]
    sv.tl.transfer_labels(query, reference, "kind")
    first = query.obsm["X_umap"].copy()
    reference.obsm["X_umap"] = reference.obsm["X_umap"] + 1
    sv.tl.transfer_labels(query, reference, "kind")
    np.testing.assert_allclose(query.obsm["X_umap"], first + 1, rtol=1e-5)


def test_another_embedding_is_found_with_and_without_prefix(query, reference):
    reference.obsm["tsne"] = reference.obsm.pop("X_umap")
    sv.tl.transfer_labels(query, reference, "kind", embedding="tsne")
    assert query.obsm["tsne"].shape == (query.n_obs, 2)
    sv.tl.transfer_labels(query, reference, "kind", embedding=None)
    sv.tl.transfer_labels(query, reference, "kind")  # there is no UMAP, which is all right
    assert "X_umap" not in query.obsm


def test_a_second_call_adds_a_label_and_keeps_the_first(query, reference):
    sv.tl.transfer_labels(query, reference, "kind", probabilities=True)
    first = query.obs["kind_pred"].copy()
    sv.tl.transfer_labels(query, reference, "age")
    pd.testing.assert_series_equal(query.obs["kind_pred"], first)
    assert set(query.uns["scvi_transfer"]["labels"]) == {"kind", "age"}
    sv.tl.transfer_labels(query, reference, "kind")
    assert "kind_prob" not in query.obsm, "an earlier call's, which this one would leave stale"


def test_same_seed_same_numbers_in_any_order_of_cells(query, reference):
    other = query[::-1].copy()
    for adata in (query, other):
        sv.tl.transfer_labels(adata, reference, ["kind", "age"])
    assert (other.obs["kind_pred"].astype(str)[::-1] == query.obs["kind_pred"].astype(str)).all()
    np.testing.assert_allclose(other.obs["age_pred"][::-1], query.obs["age_pred"], rtol=1e-9)


def test_a_view_becomes_an_object_of_its_own(query, reference):
    part = query[:12]
    sv.tl.transfer_labels(part, reference, "kind")
    assert not part.is_view
    assert "kind_pred" not in query.obs


@pytest.mark.filterwarnings("ignore:Writing zarr v2:UserWarning")  # anndata 0.12 on its own default
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_survives_a_file_and_takes_the_reference_from_one(query, reference, tmp_path, suffix):
    options = {"label_keys": ["kind", "age"], "unknown": 0.05, "probabilities": True}
    sv.tl.transfer_labels(query, reference, **options)
    for name, adata in (("query", query), ("reference", reference)):
        getattr(adata, f"write_{suffix}")(tmp_path / f"{name}.{suffix}")
    again = getattr(ad, f"read_{suffix}")(tmp_path / f"query.{suffix}")
    columns = ["kind_pred", "kind_conf", "age_pred", "age_conf", "scvi_ref_dist"]
    pd.testing.assert_frame_equal(again.obs[columns], query.obs[columns], check_exact=True)
    assert list(again.uns["kind_pred_colors"]) == list(query.uns["kind_pred_colors"])
    assert list(again.uns["scvi_transfer"]["labels"]["kind"]["classes"]) == list(CENTRES)
    sv.tl.transfer_labels(again, tmp_path / f"reference.{suffix}", **options)
    pd.testing.assert_frame_equal(again.obs[columns], query.obs[columns], check_exact=True)
    for name in ("kind_prob", "X_umap"):
        np.testing.assert_array_equal(again.obsm[name], query.obsm[name])


def other_space(query, reference):
    query.uns["scvi_mapping"] = {"reference_id": "other"}


def no_space(query, reference):
    del query.uns["scvi_mapping"]


def no_latent(query, reference):
    del query.obsm["X_scvi"]


def other_width(query, reference):
    reference.obsm["X_scvi"] = reference.obsm["X_scvi"][:, :2]


def not_finite(query, reference):
    reference.obsm["X_scvi"][3, 1] = np.nan


def taken_column(query, reference):
    query.obs["kind_pred"] = "mine"


def taken_distance(query, reference):
    query.obs["scvi_ref_dist"] = 1.0


def taken_entry(query, reference):
    query.uns["scvi_transfer"] = {"a": 1}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (other_space, "latent space of another fit"),
        (no_space, "latent space is not known"),
        (no_latent, "was not found"),
        (other_width, "has 3 columns in the query, but 2"),
        (not_finite, "finite numbers"),
        (taken_column, "kind_pred"),
        (taken_distance, "scvi_ref_dist"),
        (taken_entry, "scvi_transfer"),
    ],
)
def test_refuses_what_does_not_belong_together_or_would_be_lost(query, reference, spoil, words):
    spoil(query, reference)
    before = set(query.obs), set(query.uns), set(query.obsm)
    with pytest.raises(ValueError, match=words):
        sv.tl.transfer_labels(query, reference, "kind")
    assert (set(query.obs), set(query.uns), set(query.obsm)) == before


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"label_keys": "knd"}, KeyError, "Did you mean 'kind'"),
        ({"label_keys": []}, ValueError, "one or more different columns"),
        ({"label_keys": ["kind", "kind"]}, ValueError, "one or more different columns"),
        ({"label_keys": "a/b"}, ValueError, "without '/'"),
        ({"label_keys": "nothing"}, ValueError, "no number"),
        ({"n_neighbors": 0}, ValueError, "`n_neighbors` is 0"),
        ({"unknown": 1.5}, ValueError, "`unknown` is 1.5"),
        ({"unknown": True}, ValueError, "`unknown` is True"),
        ({"embedding": "tsne"}, KeyError, "tsne"),
        ({"probabilities": "yes"}, ValueError, "`probabilities`"),
    ],
)
def test_refuses_options_with_a_reason(query, reference, options, error, words):
    reference.obs["nothing"] = np.nan
    with pytest.raises(error, match=words):
        sv.tl.transfer_labels(query, reference, **({"label_keys": "kind"} | options))
    assert "scvi_transfer" not in query.uns


def test_a_cell_is_not_its_own_neighbour(reference):
    with pytest.raises(ValueError, match="the same object"):
        sv.tl.transfer_labels(reference, reference, "kind")


def test_tells_when_most_cells_are_far(reference, capsys):
    lost = placed(["new"] * 20, 3)
    sv.tl.transfer_labels(lost, reference, "kind")
    assert "100% of the query's cells lie farther" in capsys.readouterr().err


def test_cells_of_one_joint_fit(cell_lines):
    """Real cells; no mapping, one fit of all, whose cells the labels are known of in part."""
    adata = cell_lines.copy()
    sv.tl.scvi(adata, "batch", max_epochs=30, normalized=False, progress=False)
    is_new = np.random.default_rng(0).random(adata.n_obs) < 0.3
    query, reference = adata[is_new].copy(), adata[~is_new].copy()
    sv.tl.transfer_labels(query, reference, "cell_type", unknown=0.05)
    told = query.obs["cell_type_pred"].astype(str)
    far = (told == "Unknown").to_numpy()
    assert 0.01 < far.mean() < 0.11
    assert (told == query.obs["cell_type"].astype(str))[~far].mean() > 0.98


def test_a_new_plate_of_real_cells_gets_its_labels(cell_lines):
    plate = (cell_lines.obs["batch"] == "celseq2_5cl_p3").to_numpy()
    withheld = (cell_lines.obs["cell_type"] == "A549").to_numpy()
    reference, query = cell_lines[~plate & ~withheld].copy(), cell_lines[plate].copy()
    sv.tl.scvi(reference, "batch", max_epochs=30, normalized=False, progress=False)
    sv.tl.map_query(query, reference, update_weights=False, progress=False)
    sv.tl.transfer_labels(query, reference, "cell_type")
    new = (query.obs["cell_type"] == "A549").to_numpy()
    assert (query.obs["cell_type_pred"].astype(str) == query.obs["cell_type"].astype(str))[~new].mean() > 0.95
    distance = query.obs["scvi_ref_dist"]
    assert distance[new].median() > 1.5 * distance[~new].median()
