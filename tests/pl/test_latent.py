import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from matplotlib.colors import to_hex
from pictures import assert_same_picture

import scanpy_scvi as sv


def test_pairs_are_the_most_variable_dimensions(embedded):
    z = embedded.obsm["X_scvi"]
    dims = np.argsort(-z.var(axis=0))[:4]
    assert dims[0] == 5
    panels = sv.pl.latent(embedded, show=False)
    assert len(panels) == 10
    pairs = [(x, y) for row, y in enumerate(dims) for x in dims[: row + 1]]
    for panel, (x, y) in zip(panels, pairs, strict=True):
        if x != y:
            drawn = np.asarray(panel.collections[0].get_offsets())
            np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(z[:, [x, y]], axis=0))
    assert [panel.get_xlabel() for panel in panels[-4:]] == [f"dimension {d}" for d in dims]
    assert [panels[i].get_ylabel() for i in (1, 3, 6)] == [f"dimension {d}" for d in dims[1:]]
    assert not any(panel.get_xlabel() for panel in panels[:-4])


def test_cells_have_the_colour_of_their_group_and_none_without_one_is_drawn(embedded):
    embedded.uns["label_colors"] = ["#111111", "#222222", "#333333"]
    embedded.obs.loc[embedded.obs_names[:100], "label"] = np.nan
    figure = sv.pl.latent(embedded, "label", dims=[5, 0], return_fig=True)
    panel = figure.axes[1]
    cells = panel.collections[0]
    place = {tuple(np.round(point, 5)): to_hex(c) for point, c in zip(cells.get_offsets(), cells.get_facecolors())}  # noqa: B905
    assert len(place) == 500
    for row in np.flatnonzero(embedded.obs["label"].notna())[:50]:
        point = tuple(np.round(embedded.obsm["X_scvi"][row, [5, 0]].astype(float), 5))
        code = embedded.obs["label"].cat.codes.iloc[row]
        assert place[point] == embedded.uns["label_colors"][code]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["rare", "Monocytes, classical", "T cells"]
    assert legend.get_title().get_text() == "label"


def test_histograms_show_shares_so_that_rare_groups_are_seen(embedded):
    figure = sv.pl.latent(embedded, "label", dims=[5, 0], return_fig=True)
    for patch in figure.axes[2].patches:
        assert patch.get_data().values.sum() == pytest.approx(1)


def test_heat_map_shows_the_means(embedded):
    ax = sv.pl.latent(embedded, "label", kind="heatmap", show=False)
    rows = [label.get_text() for label in ax.get_yticklabels()]
    columns = [int(label.get_text()) for label in ax.get_xticklabels()]
    means = pd.DataFrame(embedded.obsm["X_scvi"]).groupby(embedded.obs["label"].to_numpy()).mean()
    (image,) = ax.images
    np.testing.assert_allclose(image.get_array(), means.loc[rows, columns], rtol=1e-5)
    assert image.get_clim() == pytest.approx((-means.abs().max().max(), means.abs().max().max()))
    assert sorted(columns) == list(range(6))
    assert set(columns[:2]) == {0, 5}
    assert not {1, 4} & set(columns[:2])  # what tells no group comes last


def test_similar_groups_and_what_tells_them_stand_side_by_side():
    z = np.repeat(np.array([[3.0, 0], [0, 3], [3.1, 0], [0, 3.1]]), 10, axis=0)
    adata = ad.AnnData(np.ones((40, 1), np.float32), obsm={"X_fit": z})
    adata.obs["group"] = np.repeat(list("abcd"), 10)
    ax = sv.pl.latent(adata, "group", kind="heatmap", key="fit", show=False)
    rows = "".join(label.get_text() for label in ax.get_yticklabels())
    assert {frozenset(rows[:2]), frozenset(rows[2:])} == {frozenset("ac"), frozenset("bd")}
    adata.obs["group"] = pd.Categorical(adata.obs["group"], ordered=True)
    ax = sv.pl.latent(adata, "group", kind="heatmap", key="fit", dims=[1, 0], show=False)
    assert [label.get_text() for label in ax.get_yticklabels()] == list("abcd")  # an order that means something
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "0"]  # as asked for


@pytest.mark.parametrize("n", [1, 2, 7, 9, 40, 120])
@pytest.mark.parametrize("kind", ["pairs", "heatmap"])
def test_any_number_of_groups(kind, n):
    rng = np.random.default_rng(0)
    adata = ad.AnnData(np.ones((240, 1), np.float32), obsm={"X_scvi": rng.normal(size=(240, 3))})
    adata.obs["group"] = [f"a population with a long name {i % n}" for i in range(240)]
    figure = sv.pl.latent(adata, "group", kind=kind, return_fig=True)
    figure.draw_without_rendering()
    if kind == "pairs":
        (legend,) = figure.legends
        assert len(legend.get_texts()) == n
        box = legend.get_window_extent()
        assert not any(box.overlaps(ax.get_window_extent()) for ax in figure.axes)
        assert figure.bbox.containsx(box.x0)
        assert figure.bbox.containsx(box.x1)


def test_errors_say_what_to_pass(embedded):
    with pytest.raises(KeyError, match="has no 'X_other'"):
        sv.pl.latent(embedded, key="other")
    with pytest.raises(KeyError, match=r"adata\.obs has 'label'"):
        sv.pl.latent(embedded, "cell_type")
    with pytest.raises(ValueError, match="whole numbers from 0 to 5"):
        sv.pl.latent(embedded, dims=[0, 6])
    with pytest.raises(ValueError, match="Pass `groupby`"):
        sv.pl.latent(embedded, kind="heatmap")
    with pytest.raises(ValueError, match="one of 'pairs', 'heatmap'"):
        sv.pl.latent(embedded, "label", kind="umap")
    with pytest.raises(ValueError, match="figure of its own"):
        sv.pl.latent(embedded, "label", ax=plt.subplots()[1])
    embedded.obs["depth"] = 0.5
    with pytest.raises(ValueError, match="holds numbers"):
        sv.pl.latent(embedded, "depth")
    embedded.obs["label"] = np.array([np.nan] * 600, object)
    with pytest.raises(ValueError, match="names no group"):
        sv.pl.latent(embedded, "label")


def test_nothing_is_written(embedded):
    before = embedded.copy()
    for kind in ("pairs", "heatmap"):
        sv.pl.latent(embedded, "label", kind=kind, show=False)
    assert list(embedded.uns) == list(before.uns)
    pd.testing.assert_frame_equal(embedded.obs, before.obs)


def test_saves_where_scanpy_saves(embedded, monkeypatch, tmp_path):
    monkeypatch.setattr(sc.settings, "_figdir", tmp_path)
    sv.pl.latent(embedded, "label", save="_pairs.png")
    assert [path.name for path in tmp_path.iterdir()] == ["latent_pairs.png"]


@pytest.mark.parametrize("kind", ["pairs", "heatmap"])
def test_picture(embedded, kind):
    assert_same_picture(sv.pl.latent(embedded, "label", kind=kind, return_fig=True), f"latent_{kind}")
