import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from pictures import assert_same_picture
from svae_tables import svae_adata

import scanpy_scvi as sv


@pytest.fixture
def fitted():
    return svae_adata(12)


def fields(ax):
    """Side, opacity and shift of each square by the names of its row and column."""
    (squares,) = [c for c in ax.collections if isinstance(c, PatchCollection)]
    names, latents = ([t.get_text() for t in ticks] for ticks in (ax.get_yticklabels(), ax.get_xticklabels()))
    box = [path.get_extents() for path in squares.get_paths()]
    rows = pd.DataFrame(
        {
            "perturbation": [names[round((b.y0 + b.y1) / 2)] for b in box],
            "latent": [latents[round((b.x0 + b.x1) / 2)] for b in box],
            "side": [b.width for b in box],
            "alpha": squares.get_alpha(),
            "shift": squares.get_array(),
        }
    )
    return rows.set_index(["perturbation", "latent"]), squares


def test_squares_are_the_stored_shifts_by_name(fitted):
    drawn, squares = fields(sv.pl.svae_targets(fitted, show=False))
    targets = fitted.uns["svae"]["targets"].astype({"perturbation": str, "latent": str})
    stored = targets.set_index(["perturbation", "latent"]).loc[drawn.index]
    np.testing.assert_allclose(drawn["shift"], stored["shift"])
    assert (drawn["alpha"][stored["is_target"].to_numpy()] == 1).all()
    assert (drawn["alpha"][~stored["is_target"].to_numpy()] < 0.5).all()
    is_target, probability = stored["is_target"].to_numpy(), stored["probability"].to_numpy()
    for kind in (is_target, ~is_target):
        order = np.argsort(probability[kind], kind="stable")
        assert (np.diff(drawn["side"].to_numpy()[kind][order]) > -1e-6).all()
    assert drawn["side"][is_target].min() > drawn["side"][~is_target].max()
    assert squares.get_clim()[0] == -squares.get_clim()[1]


def test_every_perturbation_and_latent_is_there_once_and_alike_ones_are_neighbours(fitted):
    ax = sv.pl.svae_targets(fitted, show=False)
    names = [t.get_text() for t in ax.get_yticklabels()]
    effects = fitted.uns["svae"]["effects"]
    assert sorted(names) == sorted(effects.index)
    assert sorted(t.get_text() for t in ax.get_xticklabels()) == sorted(effects)

    def way(rows):
        return np.linalg.norm(np.diff(effects.loc[rows].to_numpy(), axis=0), axis=1).sum()

    assert way(names) < 0.7 * way(list(effects.index))  # stored order has the families far apart
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_some_perturbations_can_be_chosen(fitted):
    ax = sv.pl.svae_targets(fitted, ["STAT1", "KLF1"], show=False)
    assert {t.get_text() for t in ax.get_yticklabels()} == {"STAT1", "KLF1"}
    one = sv.pl.svae_targets(fitted, ["STAT1"], show=False)
    assert [t.get_text() for t in one.get_yticklabels()] == ["STAT1"]


@pytest.mark.parametrize("as_series", [False, True])
def test_groups_are_a_strip_before_the_rows_with_a_legend(fitted, as_series):
    groups = {"KLF1": "erythroid", "GATA1": "erythroid", "STAT1": "interferon", "elsewhere": "x"}
    if as_series:
        groups = pd.Series({**groups, "JAK1": None}, name="complex")
    ax = sv.pl.svae_targets(fitted, groups=groups, show=False)
    names = [t.get_text() for t in ax.get_yticklabels()]
    strip = [p for p in ax.patches if isinstance(p, Rectangle) and p.get_x() < -0.6]
    color = {names[round(p.get_y() + 0.5)]: to_hex(p.get_facecolor()) for p in strip}
    assert set(color) == {"KLF1", "GATA1", "STAT1"}
    assert color["KLF1"] == color["GATA1"] != color["STAT1"]
    legend = ax.get_legend()
    assert [t.get_text() for t in legend.get_texts()] == ["erythroid", "interferon"]
    assert legend.get_title().get_text() == ("complex" if as_series else "")


def test_the_figure_grows_with_the_perturbations():
    heights = [sv.pl.svae_targets(svae_adata(n), return_fig=True).get_figheight() for n in (5, 60, 200)]
    assert heights[0] < heights[1] < heights[2]
    figure = sv.pl.svae_targets(svae_adata(200), return_fig=True)
    figure.draw_without_rendering()
    boxes = sorted((t.get_window_extent() for t in figure.axes[0].get_yticklabels()), key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 + 1 for low, high in itertools.pairwise(boxes))  # no name over another


def test_without_any_target_it_is_drawn(fitted):
    fitted.uns["svae"]["effects"][:] = 0
    drawn, _ = fields(sv.pl.svae_targets(fitted, show=False))
    assert (drawn["alpha"] < 0.5).all()


def test_draws_where_told_and_says_what_is_not_there(fitted):
    ax = plt.subplots()[1]
    assert sv.pl.svae_targets(fitted, ax=ax, show=False) is ax
    with pytest.raises(KeyError, match="no perturbation 'nothing', but 'KLF1'"):
        sv.pl.svae_targets(fitted, ["KLF1", "nothing"])
    with pytest.raises(KeyError, match="names no group"):
        sv.pl.svae_targets(fitted, groups={"x": "y"})
    with pytest.raises(KeyError, match="Pass key='svae'"):
        sv.pl.svae_targets(fitted, key="scvi")


def test_picture(fitted):
    groups = {"KLF1": "erythroid", "GATA1": "erythroid", "STAT1": "interferon", "JAK1": "interferon"}
    assert_same_picture(sv.pl.svae_targets(fitted, groups=groups, return_fig=True), "svae_targets")
