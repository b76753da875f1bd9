import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from pictures import assert_same_picture

import scanpy_scvi as sv
from scanpy_scvi.pl._axes import BLUE, GREY, ORANGE

KEY = "rank_activities_vega"
NAMES = [
    f"HALLMARK_{name}"
    for name in ("INTERFERON_ALPHA_RESPONSE", "G2M_CHECKPOINT", "HYPOXIA", "APOPTOSIS", "GLYCOLYSIS", "P53_PATHWAY")
]


def table_of(groups):
    rng = np.random.default_rng(0)
    tables = []
    for group in groups:
        effect = rng.normal(0, 1.5, len(NAMES))
        proba = 1 / (1 + np.exp(-np.abs(effect)))
        one = pd.DataFrame({"names": NAMES, "effect": effect, "proba": proba, "is_different": proba > 0.8})
        tables.append(one.assign(group=group, reference="rest").sort_values("proba", ascending=False))
    table = pd.concat(tables, ignore_index=True)
    for column in ("names", "group", "reference"):
        table[column] = pd.Categorical(table[column], categories=list(dict.fromkeys(table[column])))
    return table


@pytest.fixture
def ranked():
    adata = ad.AnnData(np.ones((3, 2), np.float32))
    adata.uns[KEY] = {"params": {}, "activities": table_of(["B cells", "CD14+ monocytes", "NK/T"])}
    return adata


def test_bars_are_the_effects_likeliest_on_top(ranked):
    ax = sv.pl.activities(ranked, "NK/T", n_sets=5, show=False)
    table = sv.get.rank_activities_df(ranked, "NK/T").head(5)
    assert [label.get_text() for label in ax.get_yticklabels()] == table["names"].to_list()
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], table["effect"])
    colors = [
        (ORANGE if e > 0 else BLUE) if c else GREY for e, c in zip(table["effect"], table["is_different"], strict=True)
    ]
    assert {BLUE, ORANGE} <= set(colors) or GREY in colors
    assert [to_hex(bar.get_facecolor()) for bar in ax.patches] == [c.lower() for c in colors]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    assert ax.get_title() == "NK/T against all others"


def test_heat_map_has_the_best_of_every_group_in_all_groups(ranked):
    ax = sv.pl.activities(ranked, n_sets=2, show=False)
    table = sv.get.rank_activities_df(ranked).astype({"names": str, "group": str})
    groups = [label.get_text() for label in ax.get_xticklabels()]
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert groups == ["B cells", "CD14+ monocytes", "NK/T"]
    assert set(names) == set(table.groupby("group").head(2)["names"])
    (image,) = ax.images
    for i, name in enumerate(names):
        for j, group in enumerate(groups):
            row = table[(table["names"] == name) & (table["group"] == group)].iloc[0]
            assert image.get_array()[i, j] == pytest.approx(row["effect"])
            dots = [tuple(dot) for dot in ax.collections[0].get_offsets()]
            assert ((j, i) in dots) == row["is_different"]
    assert image.get_clim()[0] == -image.get_clim()[1]


def test_a_single_group_is_drawn_as_bars(ranked):
    ranked.uns[KEY]["activities"] = table_of(["stim"])
    ax = sv.pl.activities(ranked, show=False)
    assert not ax.images
    assert len(ax.patches) == len(NAMES)


def test_draws_where_told(ranked):
    for group in (None, "B cells"):
        ax = plt.subplots()[1]
        assert sv.pl.activities(ranked, group, ax=ax, show=False) is ax


def test_what_is_not_there_is_named(ranked):
    with pytest.raises(KeyError, match="no group 'nobody'"):
        sv.pl.activities(ranked, "nobody")
    with pytest.raises(KeyError, match=f"Pass key='{KEY}'"):
        sv.pl.activities(ranked, key="x")


def test_picture(ranked):
    assert_same_picture(sv.pl.activities(ranked, "CD14+ monocytes", return_fig=True), "activities")


def test_picture_of_several_groups(ranked):
    assert_same_picture(sv.pl.activities(ranked, return_fig=True), "activities_groups")
