import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from pictures import assert_same_picture
from svae_tables import svae_adata

import scanpy_scvi as sv


@pytest.fixture
def fitted():
    return svae_adata(12)


@pytest.fixture
def effect():
    """Genes of which a tenth change, and the target, whose own loss is not predicted."""
    rng = np.random.default_rng(0)
    predicted = rng.normal(0, 0.15, 300) * np.where(np.arange(300) < 30, 8, 1)
    observed = predicted * rng.uniform(0.8, 1.3, 300) + rng.normal(0, 0.15, 300)
    table = pd.DataFrame({"predicted": predicted, "observed": observed, "n_cells": 431})
    table.index = [f"GENE{i}" for i in range(300)]
    table = table.rename(index={"GENE200": "KLF1"})
    table.loc["KLF1", ["predicted", "observed"]] = -0.1, -2.8
    half = 0.1 + 0.2 * table["predicted"].abs()
    table["observed_error"] = rng.uniform(0.02, 0.6, 300)
    return table.assign(low=table["predicted"] - half, high=table["predicted"] + half)


def names_in(ax):
    return {t.get_text() for t in ax.texts} - {""}


def test_points_are_the_table_and_the_title_its_correlation(fitted, effect):
    ax = sv.pl.svae_effect(fitted, "KLF1", effect=effect, show=False)
    np.testing.assert_allclose(ax.collections[0].get_offsets(), effect[["observed", "predicted"]])
    order = np.argsort(effect["observed_error"])
    assert (np.diff(ax.collections[0].get_alpha()[order]) < 0).all()
    r = effect["observed"].corr(effect["predicted"])
    assert ax.get_title() == f"KLF1 (431 cells): correlation {r:.2f}"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("observed log2 fold change", "predicted log2 fold change")


def test_the_target_is_marked_and_the_largest_are_named(fitted, effect):
    ax = sv.pl.svae_effect(fitted, "KLF1", effect=effect, n_genes=4, show=False)
    largest = (effect["observed"].abs() - 1.96 * effect["observed_error"]).nlargest(4).index
    assert names_in(ax) == {"KLF1", *largest}
    mark = ax.collections[-1]
    np.testing.assert_allclose(mark.get_offsets(), [[-2.8, -0.1]])


def test_both_targets_of_a_pair_are_marked(fitted, effect):
    effect = effect.rename(index={"GENE5": "STAT1"})
    ax = sv.pl.svae_effect(fitted, "KLF1+STAT1", effect=effect, n_genes=0, show=False)
    assert names_in(ax) == {"KLF1", "STAT1"}


def test_genes_and_target_can_be_named(fitted, effect):
    ax = sv.pl.svae_effect(fitted, "KLF1", genes=["GENE7"], target="GENE9", effect=effect, show=False)
    assert names_in(ax) == {"GENE7", "GENE9"}
    with pytest.raises(KeyError, match="'nothing' are not in the table"):
        sv.pl.svae_effect(fitted, "KLF1", genes=["nothing"], effect=effect)
    with pytest.raises(KeyError, match="'nothing' are not in the table"):
        sv.pl.svae_effect(fitted, "KLF1", target="nothing", effect=effect)


def test_intervals_are_those_of_the_table(fitted, effect):
    ax = sv.pl.svae_effect(fitted, "KLF1", genes=["GENE7"], effect=effect, show=False)
    segments = [s for c in ax.collections if hasattr(c, "get_segments") for s in c.get_segments()]
    stored = effect.loc[["KLF1", "GENE7"]]
    np.testing.assert_allclose([s[:, 1] for s in segments], stored[["low", "high"]])
    np.testing.assert_allclose([s[:, 0] for s in segments], stored[["observed", "observed"]])


def test_without_an_open_gate_there_is_no_correlation(fitted, effect):
    flat = effect.assign(predicted=0.0, low=0.0, high=0.0)
    assert sv.pl.svae_effect(fitted, "KLF1", effect=flat, show=False).get_title() == "KLF1 (431 cells): no open gate"


def test_the_table_is_asked_for_where_it_is_not_given(fitted, effect, monkeypatch):
    asked = []
    monkeypatch.setattr(sv.get, "perturbation_effect", lambda _, name, key: asked.append((name, key)) or effect)
    sv.pl.svae_effect(fitted, "KLF1", key="svae", show=False)
    assert asked == [("KLF1", "svae")]


def test_what_was_not_observed_is_not_drawn(fitted, effect):
    with pytest.raises(ValueError, match="No fold change of 'KLF1' was observed"):
        sv.pl.svae_effect(fitted, "KLF1", effect=effect.assign(observed=np.nan))
    with pytest.raises(KeyError, match="Pass key='svae'"):
        sv.pl.svae_effect(fitted, "KLF1", key="scvi")


def test_draws_where_told(fitted, effect):
    ax = plt.subplots()[1]
    assert sv.pl.svae_effect(fitted, "KLF1", effect=effect, ax=ax, show=False) is ax


def test_picture(fitted, effect):
    assert_same_picture(sv.pl.svae_effect(fitted, "KLF1", effect=effect, return_fig=True), "svae_effect")
