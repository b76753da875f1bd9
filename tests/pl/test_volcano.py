import builtins
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from pictures import assert_same_picture

import scanpy_scvi as sv

KEY = "rank_genes_groups_scvi"
GROUP = "CD14+ monocytes"


@pytest.fixture
def without_adjust_text(monkeypatch):
    """As if the extra `plot` were not installed."""
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "adjustText":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "adjustText", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)


@pytest.fixture(params=["with adjustText", "without"])
def either_way(request):
    if request.param == "without":
        request.getfixturevalue("without_adjust_text")
    else:
        pytest.importorskip("adjustText")


def clouds(ax):
    """Drawn points by the first word of their name in the legend."""
    handles, labels = ax.get_legend_handles_labels()
    pairs = zip(labels, handles, strict=True)
    return {label.split(":")[0]: np.asarray(h.get_offsets()) for label, h in pairs if ":" in label}


def named(ax):
    return [text for text in ax.texts if text.get_text()]


def test_points_are_the_stored_numbers(ranked):
    ax = sv.pl.volcano(ranked, GROUP, show=False)
    table = sv.get.rank_genes_groups_df(ranked, GROUP)
    table["ratio"] = table["lfc_mean"].abs() / table["lfc_std"]
    called, up = table["is_de"], table["lfc_mean"] > 0
    for label, rows in (("not called", ~called), ("up", called & up), ("down", called & ~up)):
        np.testing.assert_allclose(clouds(ax)[label], table.loc[rows, ["lfc_mean", "ratio"]])
    assert 0 < len(clouds(ax)["up"]) < 100
    assert [text.get_text() for text in ax.get_legend().get_texts()][1] == f"up: {(called & up).sum()}"
    assert ax.get_xlabel() == f"log2 fold change, {GROUP} against all others"
    assert ax.get_ylabel() == "|log2 fold change| / posterior sd"
    assert sorted(line.get_xdata()[0] for line in ax.lines) == [-0.25, 0.25]


def test_probabilities_are_shown_with_their_limit(ranked):
    ax = sv.pl.volcano(ranked, GROUP, evidence="probability", show=False)
    table = sv.get.rank_genes_groups_df(ranked, GROUP)
    height = np.concatenate([points[:, 1] for points in clouds(ax).values()])
    np.testing.assert_allclose(np.sort(height), np.sort(-np.log10(table["proba_not_de"])))
    (limit,) = [line for line in ax.lines if line.get_linestyle() == ":"]
    assert limit.get_ydata()[0] == pytest.approx(height.max())
    assert limit.get_label() == "limit of 5,000 draws"
    ranked.uns[f"{KEY}_table"]["proba_not_de"] = 0.01
    ax = sv.pl.volcano(ranked, GROUP, evidence="probability", show=False)
    assert not [line for line in ax.lines if line.get_linestyle() == ":"]


@pytest.mark.usefixtures("either_way")
def test_the_best_called_genes_of_both_directions_are_named(ranked):
    ax = sv.pl.volcano(ranked, GROUP, n_genes=5, show=False)
    table = sv.get.rank_genes_groups_df(ranked, GROUP, only_de=True)
    assert {text.get_text() for text in named(ax)} == {*table["names"][:5], *table["names"][-5:]}


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("n_genes", [8, 15])
def test_names_lie_inside_and_not_over_each_other(ranked, n_genes):
    ax = sv.pl.volcano(ranked, GROUP, n_genes=n_genes, show=False)
    ax.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in named(ax)]
    assert len(boxes) == 2 * n_genes
    over = [(i, j) for i, a in enumerate(boxes) for j, b in enumerate(boxes[:i]) if a.overlaps(b)]
    assert over == []
    frame = ax.get_window_extent().padded(1)
    assert all(frame.contains(*corner) for box in boxes for corner in box.corners())


@pytest.mark.usefixtures("either_way")
def test_names_fall_in_the_same_places_every_time(ranked):
    state = np.random.get_state()[1].copy()  # noqa: NPY002  that of the caller
    places = [[t.get_position() for t in named(sv.pl.volcano(ranked, GROUP, show=False))] for _ in range(2)]
    assert places[0] == places[1]
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


@pytest.mark.usefixtures("either_way")
def test_chosen_genes_are_named_called_or_not(ranked):
    genes = ["GENE100", "GENE0"]
    ax = sv.pl.volcano(ranked, GROUP, genes=genes, show=False)
    assert sorted(text.get_text() for text in named(ax)) == sorted(genes)
    table = sv.get.rank_genes_groups_df(ranked, GROUP).set_index("names")
    ringed = np.asarray(ax.collections[-1].get_offsets())
    np.testing.assert_allclose(ringed[:, 0], table.loc[genes, "lfc_mean"])


@pytest.mark.usefixtures("either_way")
def test_nothing_called_and_nothing_named(ranked):
    ranked.uns[f"{KEY}_table"]["is_de"] = False
    ax = sv.pl.volcano(ranked, GROUP, show=False)
    assert named(ax) == []
    assert len(clouds(ax)["not called"]) == 200


def test_a_single_group_needs_no_name_and_several_do(ranked):
    table = ranked.uns[f"{KEY}_table"]
    with pytest.raises(ValueError, match=r"has the groups 'B cells', 'CD14\+ monocytes', 'T cells'. Pass `group`"):
        sv.pl.volcano(ranked)
    one = table[table["group"] == "T cells"].reset_index(drop=True)
    one["group"] = one["group"].cat.remove_unused_categories()
    ranked.uns["one_table"] = one.assign(reference="B cells")
    assert sv.pl.volcano(ranked, key="one", show=False).get_xlabel().endswith("T cells against B cells")


def test_errors_name_what_there_is(ranked):
    with pytest.raises(KeyError, match="has no group 'nobody'"):
        sv.pl.volcano(ranked, "nobody")
    with pytest.raises(KeyError, match="has no genes 'GENE1000'"):
        sv.pl.volcano(ranked, GROUP, genes=["GENE1", "GENE1000"])
    with pytest.raises(ValueError, match="one of 'ratio', 'probability'"):
        sv.pl.volcano(ranked, GROUP, evidence="p")
    with pytest.raises(KeyError, match=f"Pass key='{KEY}'"):
        sv.pl.volcano(ranked, GROUP, key="none")


def test_draws_where_told_and_shows_when_told(ranked, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    ax = plt.subplots()[1]
    assert sv.pl.volcano(ranked, GROUP, ax=ax, show=False) is ax
    assert sv.pl.volcano(ranked, GROUP, show=True) is None
    assert shown == [True]


@pytest.mark.usefixtures("without_adjust_text")
@pytest.mark.parametrize("evidence", ["ratio", "probability"])
def test_picture(ranked, evidence):
    assert_same_picture(sv.pl.volcano(ranked, GROUP, evidence=evidence, return_fig=True), f"volcano_{evidence}")


def test_importing_the_plots_loads_no_adjust_text():
    code = "import sys, scanpy_scvi.pl; print('adjustText' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert answer.stdout.strip() == "False"
