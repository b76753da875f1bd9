import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from pictures import assert_same_picture
from svae_tables import svae_adata

import scanpy_scvi as sv
from scanpy_scvi.pl._axes import BLACK


@pytest.fixture
def fitted():
    return svae_adata(24)


def points(ax):
    """Null splits, where there are some, and perturbations."""
    return [np.asarray(c.get_offsets()) for c in ax.collections]


def test_points_are_the_shifts_on_the_principal_axes_of_the_effects(fitted):
    entry = fitted.uns["svae"]
    nulls, drawn = points(sv.pl.perturbation_embedding(fitted, show=False))
    effects = entry["effects"].to_numpy(float)
    values, vectors = np.linalg.eigh(effects.T @ effects)
    shifts = sv.get.perturbations(fitted).layers["shift"]
    for i in range(2):
        axis = vectors[:, -1 - i]
        np.testing.assert_allclose(np.abs(drawn[:, i]), np.abs(shifts @ axis), atol=1e-5)
        np.testing.assert_allclose(np.abs(nulls[:, i]), np.abs(entry["null_shifts"] @ axis), atol=1e-5)
    share = values[-1] / values.sum()
    ax = sv.pl.perturbation_embedding(fitted, show=False)
    assert ax.get_xlabel() == f"PC1 ({share:.0%} of squared effects)"


def test_areas_grow_with_cells_and_faces_tell_targets(fitted):
    perturbed = sv.pl.perturbation_embedding(fitted, show=False).collections[-1]
    table = fitted.uns["svae"]["perturbations"]
    order = np.argsort(table["n_cells"])
    assert (np.diff(perturbed.get_sizes()[order]) >= 0).all()
    assert len(np.unique(perturbed.get_sizes())) > 10
    filled = perturbed.get_facecolor()[:, 3] > 0
    np.testing.assert_array_equal(filled, table["n_targets"] > 0)
    assert 0 < filled.sum() < len(filled)


def test_groups_give_colours(fitted):
    ax = sv.pl.perturbation_embedding(fitted, groups={"KLF1": "a", "STAT1": "b", "GATA1": "a"}, show=False)
    names = list(fitted.uns["svae"]["effects"].index)
    edges = dict(zip(names, map(to_hex, ax.collections[-1].get_edgecolor()), strict=True))
    assert edges["KLF1"] == edges["GATA1"] != edges["STAT1"]
    assert edges["JAK1"] == BLACK
    assert {"a", "b", "null split"} <= {t.get_text() for t in ax.get_legend().get_texts()}


def test_names_are_those_asked_for_or_the_largest_that_stand_apart(fitted):
    def named(**options):
        return {t.get_text() for t in sv.pl.perturbation_embedding(fitted, show=False, **options).texts} - {""}

    assert named(names=["KLF1", "STAT1"]) == {"KLF1", "STAT1"}
    largest = fitted.uns["svae"]["perturbations"]["effect"].idxmax()
    assert named(n_names=1) == {largest}
    assert largest in named()
    assert len(named()) <= 20


def test_without_control_there_are_no_null_splits():
    ax = sv.pl.perturbation_embedding(svae_adata(10, control=False), show=False)
    assert len(points(ax)) == 1
    assert "null split" not in {t.get_text() for t in ax.get_legend().get_texts()}


@pytest.mark.parametrize("n_latent", [1, 2])
def test_few_latents_and_no_targets_are_drawn(n_latent):
    adata = svae_adata(8, n_latent=n_latent)
    adata.uns["svae"]["effects"][:] = 0
    drawn = points(sv.pl.perturbation_embedding(adata, show=False))[-1]
    assert drawn.shape == (8, 2)
    assert np.isfinite(drawn).all()


@pytest.mark.slow  # compiles
def test_umap_keeps_families_together_and_repeats_itself():
    adata = svae_adata(48)
    nulls, drawn = points(sv.pl.perturbation_embedding(adata, basis="umap", show=False))
    again = points(sv.pl.perturbation_embedding(adata, basis="umap", show=False))[1]
    np.testing.assert_array_equal(drawn, again)
    distance = np.linalg.norm(drawn[:, None] - drawn, axis=2) + np.diag(np.full(48, np.inf))
    silent = np.arange(48) % 6 == 5
    nearest = distance.argmin(1)
    assert (nearest % 6 == np.arange(48) % 6)[~silent].mean() > 0.7  # families are numbers modulo six
    assert len(nulls) == 40


def test_draws_where_told_and_says_what_is_not_there(fitted):
    ax = plt.subplots()[1]
    assert sv.pl.perturbation_embedding(fitted, ax=ax, show=False) is ax
    with pytest.raises(ValueError, match="`basis` is 'tsne'"):
        sv.pl.perturbation_embedding(fitted, basis="tsne")
    with pytest.raises(KeyError, match="no perturbation 'nothing'"):
        sv.pl.perturbation_embedding(fitted, names=["nothing"])
    with pytest.raises(KeyError, match="Pass key='svae'"):
        sv.pl.perturbation_embedding(fitted, key="scvi")
    with pytest.raises(ValueError, match="too few for a UMAP"):
        sv.pl.perturbation_embedding(svae_adata(3, control=False), basis="umap")


def test_picture(fitted):
    groups = {"KLF1": "erythroid", "GATA1": "erythroid", "STAT1": "interferon", "JAK1": "interferon"}
    figure = sv.pl.perturbation_embedding(fitted, groups=groups, n_names=8, return_fig=True)
    assert_same_picture(figure, "perturbation_embedding")
