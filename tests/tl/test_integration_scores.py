import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scanpy_scvi as sv
from scanpy_scvi.metrics import batch_mixing, ideal_batch_mixing, label_score

KEY = "scvi_integration"


@pytest.fixture(scope="module")
def scored(cell_lines):
    adata = cell_lines.copy()
    sv.tl.scvi(adata, "batch", max_epochs=15, normalized=False, progress=False)
    sv.tl.integration_scores(adata, label_key="cell_type")
    return adata


def test_scores_are_those_of_metrics(scored):
    table = scored.uns[KEY]["table"]
    z, batch, line = scored.obsm["X_scvi"], scored.obs["batch"], scored.obs["cell_type"]
    assert table.loc["after", "label_score"] == pytest.approx(label_score(z, line))
    assert table.loc["after", "batch_mixing"] == pytest.approx(batch_mixing(z, batch))
    assert table["ideal"].to_list() == pytest.approx([ideal_batch_mixing(batch, line)] * 2)
    assert (table["n_cells"] == scored.n_obs).all()


def test_integration_mixes_and_keeps(scored):
    table = scored.uns[KEY]["table"]
    excess = table["batch_mixing"] - table["ideal"]
    assert excess["after"] < excess["before"] / 2
    assert table.loc["after", "label_score"] > 0.98


def test_labels_add_up_to_the_whole(scored):
    table, labels = scored.uns[KEY]["table"], scored.uns[KEY]["labels"]
    counts = scored.obs["cell_type"].value_counts()
    for stage, rows in labels.groupby("stage", observed=True):
        rows = rows.set_index("label")
        assert (rows["n_cells"] == counts[rows.index]).all()
        for score in ("label_score", "batch_mixing", "ideal"):
            assert np.average(rows[score], weights=rows["n_cells"]) == pytest.approx(table.loc[stage, score])


def test_before_may_be_named(scored):
    adata = scored.copy()
    adata.obsm["noise"] = np.random.default_rng(0).normal(size=(adata.n_obs, 3))
    sv.tl.integration_scores(adata, "protocol", label_key="cell_type", before="noise", n_neighbors=20)
    table = adata.uns[KEY]["table"]
    assert table.loc["before", "label_score"] < 0.5
    assert table.loc["before", "batch_mixing"] == pytest.approx(
        batch_mixing(adata.obsm["noise"], adata.obs["protocol"], n_neighbors=20)
    )
    assert adata.uns[KEY]["params"]["batch_key"] == "protocol"


def test_components_before_are_those_of_log_normalized_counts(scored):
    import scanpy as sc

    logged = scored.copy()
    sc.pp.normalize_total(logged, target_sum=1e4)
    sc.pp.log1p(logged)
    sc.pp.pca(logged, n_comps=30, mask_var=None, random_state=0)
    expected = batch_mixing(logged.obsm["X_pca"], scored.obs["batch"])
    assert scored.uns[KEY]["table"].loc["before", "batch_mixing"] == pytest.approx(expected, abs=0.005)


def test_without_labels_and_with_missing_ones(fitted):
    adata = fitted.copy()
    sv.tl.integration_scores(adata)
    assert "labels" not in adata.uns[KEY]
    assert "label_score" not in adata.uns[KEY]["table"]
    adata.obs["some"] = adata.obs["label"].astype(object).where(adata.obs["label"] != "label_0")
    sv.tl.integration_scores(adata, label_key="some")
    keep = adata.obs["some"].notna()
    table = adata.uns[KEY]["table"]
    assert (table["n_cells"] == keep.sum()).all()
    expected = batch_mixing(adata.obsm["X_scvi"][keep], adata.obs["batch"][keep])
    assert table.loc["after", "batch_mixing"] == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:n_jobs value:UserWarning")  # of umap, on its own default
def test_maps_are_written_where_asked_for(fitted):
    adata = fitted.copy()
    sv.tl.integration_scores(adata, umap=True)
    maps = [adata.obsm[f"X_umap_scvi_{stage}"] for stage in ("before", "after")]
    assert [m.shape for m in maps] == [(adata.n_obs, 2)] * 2
    sv.tl.integration_scores(adata, umap=True)
    np.testing.assert_array_equal(adata.obsm["X_umap_scvi_before"], maps[0])
    assert set(adata.uns) == {"scvi", KEY} | set(fitted.uns)
    assert set(adata.obsp) == set(fitted.obsp)


@pytest.mark.filterwarnings("ignore:Writing zarr v2:UserWarning")  # anndata 0.12 on its own default
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_survives_a_file_and_works_on_it(fitted, tmp_path, suffix):
    adata = fitted.copy()
    adata.obs["label"] = adata.obs["label"].cat.rename_categories(["a/b", "µ é", "0"])
    sv.tl.integration_scores(adata, label_key="label")
    path = tmp_path / f"a.{suffix}"
    getattr(adata, f"write_{suffix}")(path)
    again = getattr(ad, f"read_{suffix}")(path)
    for _ in range(2):
        for name in ("table", "labels"):
            pd.testing.assert_frame_equal(
                again.uns[KEY][name], adata.uns[KEY][name], check_exact=True, check_categorical=False
            )
        sv.tl.integration_scores(again, label_key="label")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"key": "other"}, KeyError, "Fits are stored under 'scvi'"),
        ({"batch_key": "nothing"}, KeyError, "nothing"),
        ({"label_key": "lable"}, KeyError, "Did you mean 'label'"),
        ({"before": "X_umap"}, KeyError, "X_umap"),
        ({"batch_key": "same"}, ValueError, "mixing needs two"),
        ({"n_neighbors": 0}, ValueError, "`n_neighbors` is 0"),
        ({"key_added": "scvi"}, ValueError, "holds no scores"),
    ],
)
def test_refuses_with_a_reason_and_leaves_the_object(fitted, options, error, words):
    adata = fitted.copy()
    adata.obs["same"] = "x"
    before = set(adata.uns)
    with pytest.raises(error, match=words):
        sv.tl.integration_scores(adata, **options)
    assert set(adata.uns) == before
