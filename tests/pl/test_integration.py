import anndata as ad
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from pictures import assert_same_picture

import scanpy_scvi as sv


@pytest.fixture(autouse=True)
def _no_windows():
    mpl.use("agg")
    yield
    plt.close("all")


@pytest.fixture
def scored():
    """Scores and maps as `tl` stores them, without fitting anything."""
    rng = np.random.default_rng(0)
    line, batch = rng.integers(0, 3, 300), rng.integers(0, 2, 300)
    centre = np.array([[0, 0], [5, 1], [2, 5]])[line]
    after = centre + rng.normal(0, 0.5, (300, 2))
    adata = ad.AnnData(np.ones((300, 2), np.float32))
    adata.obsm = {"X_umap_scvi_after": after, "X_umap_scvi_before": after + 2.2 * np.c_[batch, -batch]}
    adata.obs["batch"] = pd.Categorical(np.array(["10x v2", "10x v3"])[batch])
    adata.obs["cell_type"] = pd.Categorical(np.array(["B", "CD4+/CD25 T reg", "NK"])[line])
    adata.uns["batch_colors"] = np.array(["#123456", "#fedcba"], object)
    table = pd.DataFrame(
        {"label_score": [0.97, 0.99], "batch_mixing": [0.95, 0.55], "ideal": [0.5, 0.5], "n_cells": [300.0, 300.0]},
        index=["before", "after"],
    )
    params = {"key": "scvi", "batch_key": "batch", "label_key": "cell_type"}
    adata.uns["scvi_integration"] = {"params": params, "table": table}
    return adata


def test_panels_show_maps_in_the_colours_of_uns_and_scores(scored):
    axes = sv.pl.integration(scored, show=False)
    assert len(axes) == 5
    assert [ax.get_title() for ax in axes[:2]] == ["before", "after"]
    for ax, stage in zip(axes[:4], ["before", "after"] * 2, strict=True):
        drawn = np.asarray(ax.collections[0].get_offsets())
        stored = scored.obsm[f"X_umap_scvi_{stage}"]
        np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(stored, axis=0))
    points = axes[0].collections[0]
    cell = np.linalg.norm(scored.obsm["X_umap_scvi_before"] - points.get_offsets()[7], axis=1).argmin()
    color = dict(zip(scored.obs["batch"].cat.categories, scored.uns["batch_colors"], strict=True))
    np.testing.assert_allclose(points.get_facecolors()[7], to_rgba(color[scored.obs["batch"].iloc[cell]]))
    assert [text.get_text() for text in axes[3].get_legend().get_texts()] == ["B", "CD4+/CD25 T reg", "NK"]
    lines = {line.get_label(): line.get_xdata() for line in axes[4].lines}
    np.testing.assert_array_equal(lines["before"], [0.97, 0.95])
    np.testing.assert_array_equal(lines["after"], [0.99, 0.55])
    np.testing.assert_array_equal(lines["ideal mixing"], [0.5])


def test_without_labels_there_is_one_row(scored):
    entry = scored.uns["scvi_integration"]
    del entry["params"]["label_key"]
    entry["table"] = entry["table"].drop(columns="label_score")
    axes = sv.pl.integration(scored, before_basis="umap_scvi_after", show=False)
    assert len(axes) == 3
    np.testing.assert_allclose(*(np.sort(np.asarray(ax.collections[0].get_offsets()), axis=0) for ax in axes[:2]))


def test_what_is_missing_is_named(scored):
    with pytest.raises(KeyError, match=r"sv\.tl\.integration_scores first"):
        sv.pl.integration(scored, key="other")
    del scored.obsm["X_umap_scvi_before"]
    with pytest.raises(KeyError, match="umap=True"):
        sv.pl.integration(scored)


def test_picture(scored):
    assert_same_picture(sv.pl.integration(scored, return_fig=True), "integration")
