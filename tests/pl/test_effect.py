import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from pictures import assert_same_picture

import scanpy_scvi as sv

KEY = "rank_genes_groups_scvi"
GROUP = "T cells"


def names(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def test_medians_and_intervals_are_the_stored_ones_largest_first(ranked):
    ax = sv.pl.effect(ranked, GROUP, n_genes=7, show=False)
    everything = sv.get.rank_genes_groups_df(ranked, GROUP)
    assert set(names(ax)) == {*everything["names"][:7], *everything["names"][-7:]}
    table = everything.set_index("names").loc[names(ax)]
    assert (np.diff(table["lfc_median"]) < 0).all()
    lines, dots = ax.collections
    np.testing.assert_allclose([s[:, 0] for s in lines.get_segments()], table[["lfc_low", "lfc_high"]])
    np.testing.assert_allclose([s[:, 1] for s in lines.get_segments()], np.c_[np.arange(14), np.arange(14)])
    np.testing.assert_allclose(dots.get_offsets(), np.c_[table["lfc_median"], np.arange(14)])
    assert ax.yaxis_inverted()
    assert ax.get_xlabel() == "log2 fold change, 95 % interval"
    assert ax.get_title() == "T cells against all others"


def test_called_genes_are_filled_in_the_colour_of_their_direction(ranked):
    table = sv.get.rank_genes_groups_df(ranked, GROUP)
    quiet = table.loc[~table["is_de"], "names"].iloc[0]
    genes = [table["names"].iloc[-1], quiet, table["names"].iloc[0]]
    ax = sv.pl.effect(ranked, GROUP, genes=genes, show=False)
    assert names(ax) == genes[::-1]
    dots = ax.collections[1]
    assert [to_hex(color).upper() for color in dots.get_facecolors()] == ["#D55E00", "#FFFFFF", "#0072B2"]
    assert [to_hex(color).upper() for color in dots.get_edgecolors()] == ["#D55E00", "#999999", "#0072B2"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["called", "not called"]


def test_the_band_is_what_does_not_count(ranked):
    ax = sv.pl.effect(ranked, GROUP, show=False)
    (band,) = ax.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == (-0.25, 0.25)
    ranked.uns[f"{KEY}_table"]["delta"] = 0.0
    assert not sv.pl.effect(ranked, GROUP, show=False).patches


def test_a_short_ranking_is_drawn_once(ranked):
    ranked.uns[f"{KEY}_table"] = sv.get.rank_genes_groups_df(ranked, GROUP).iloc[:9]
    ax = sv.pl.effect(ranked, GROUP, n_genes=6, show=False)
    assert len(names(ax)) == len(set(names(ax))) == 9


def test_draws_where_told(ranked):
    ax = plt.subplots()[1]
    assert sv.pl.effect(ranked, GROUP, ax=ax, show=False) is ax
    with pytest.raises(KeyError, match="has no genes 'nothing'"):
        sv.pl.effect(ranked, GROUP, genes="nothing")


def test_picture(ranked):
    table = sv.get.rank_genes_groups_df(ranked, GROUP)
    genes = [*table["names"][:8], *table["names"][100:104], *table["names"][-8:]]
    assert_same_picture(sv.pl.effect(ranked, GROUP, genes=genes, return_fig=True), "effect")
