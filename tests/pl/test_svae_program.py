import matplotlib.pyplot as plt
import numpy as np
import pytest
from pictures import assert_same_picture
from svae_tables import svae_adata

import scanpy_scvi as sv


@pytest.fixture
def fitted():
    return svae_adata(24)


def test_genes_are_those_at_both_ends_of_the_program(fitted):
    genes, _ = sv.pl.svae_program(fitted, 0, n_genes=4, show=False)
    program = fitted.varm["svae_programs"][:, 0]
    seen = program * np.sqrt(fitted.var["svae_basal_expression"].to_numpy())
    order = np.argsort(seen[:57])[::-1]  # the last three are outside of the model
    assert set(order[:4]) != set(np.argsort(program[:57])[-4:])
    wanted = [*order[:4], *order[-4:]]
    assert [t.get_text() for t in genes.get_yticklabels()] == list(fitted.var_names[wanted])
    np.testing.assert_allclose([bar.get_width() for bar in genes.patches], program[wanted])
    assert genes.get_title() == "latent 0"


def test_without_their_shares_genes_are_sorted_by_change(fitted):
    del fitted.var["svae_basal_expression"]
    genes, _ = sv.pl.svae_program(fitted, 0, n_genes=4, show=False)
    widths = [bar.get_width() for bar in genes.patches]
    assert widths == sorted(widths, reverse=True)


def test_perturbations_are_those_with_the_target_by_shift(fitted):
    _, panel = sv.pl.svae_program(fitted, "0", show=False)
    effects = fitted.uns["svae"]["effects"]["0"]
    stored = effects[effects != 0].sort_values(ascending=False)
    assert [t.get_text() for t in panel.get_yticklabels()] == list(stored.index)
    np.testing.assert_allclose(panel.collections[1].get_offsets()[:, 0], stored)
    targets = fitted.uns["svae"]["targets"].query("latent == '0'").set_index("perturbation")
    half = 1.96 * targets.loc[stored.index, "standard_error"].to_numpy()
    bars = np.array([segment[:, 0] for segment in panel.collections[0].get_segments()])
    np.testing.assert_allclose(bars, np.c_[stored - half, stored + half], rtol=1e-5)
    assert panel.get_title() == f"{len(stored)} perturbations push it"


def test_of_many_perturbations_the_strongest_are_drawn(fitted):
    _, panel = sv.pl.svae_program(fitted, 0, n_perturbations=3, show=False)
    effects = fitted.uns["svae"]["effects"]["0"]
    strongest = effects.abs().nlargest(3).index
    assert {t.get_text() for t in panel.get_yticklabels()} == set(strongest)
    assert panel.get_title() == f"3 of {(effects != 0).sum()} perturbations push it"


def test_few_genes_are_drawn_once_and_a_latent_may_have_no_perturbation(fitted):
    fitted.uns["svae"]["effects"]["2"] = 0.0
    genes, panel = sv.pl.svae_program(fitted, 2, n_genes=100, show=False)
    names = [t.get_text() for t in genes.get_yticklabels()]
    assert len(names) == len(set(names)) == 57
    assert panel.get_title() == "no perturbations push it"
    fitted.uns["svae"]["effects"].loc["KLF1", "2"] = 1.0
    assert sv.pl.svae_program(fitted, 2, show=False)[1].get_title() == "1 perturbation pushes it"


def test_given_axes_take_the_genes_alone(fitted):
    figure, ax = plt.subplots()
    assert sv.pl.svae_program(fitted, 1, ax=ax, show=False) is ax
    assert figure.axes == [ax]
    assert len(ax.get_yticklabels()) == 20


def test_what_is_not_there_is_named(fitted):
    with pytest.raises(KeyError, match="no latent '6', but '0', '1'"):
        sv.pl.svae_program(fitted, 6)
    with pytest.raises(KeyError, match="Pass key='svae'"):
        sv.pl.svae_program(fitted, 0, key="scvi")
    del fitted.varm["svae_programs"]
    with pytest.raises(KeyError, match="no 'svae_programs'"):
        sv.pl.svae_program(fitted, 0)


def test_picture(fitted):
    assert_same_picture(sv.pl.svae_program(fitted, 0, return_fig=True), "svae_program")
