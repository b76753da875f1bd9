import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from pictures import assert_same_picture

import scanpy_scvi as sv
from scanpy_scvi.pl._axes import BLUE, ORANGE


@pytest.fixture
def fitted():
    """Loadings and embedding as `tl.ldvae` stores them, without fitting anything; every fifth gene is not modelled."""
    rng = np.random.default_rng(0)
    n, g, d = 300, 60, 8
    w = rng.normal(0, 0.3, (g, d)) + 1.5 * (rng.random((g, d)) < 0.06)
    w[::5] = np.nan
    adata = ad.AnnData(np.ones((n, g), np.float32), varm={"ldvae_loadings": w.astype(np.float32)})
    adata.var_names = [f"Gene{i}" for i in range(g)]
    adata.var["ldvae_modelled"] = ~np.isnan(w[:, 0])
    adata.obsm["X_ldvae"] = rng.normal(size=(n, d)).astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi, n)
    adata.obsm["X_umap"] = np.c_[np.cos(angle), np.sin(angle)] * rng.uniform(1, 2, n)[:, None]
    adata.obsm["X_ldvae"][:, 0] = 2 * np.cos(angle)
    ratio = np.array([0.1, 0.3, 0.2, 0.15, 0.1, 0.05, 0.06, 0.04])
    adata.uns["ldvae"] = {"explained_variance_ratio": ratio}
    return adata


def test_bars_are_the_largest_loadings_in_their_order(fitted):
    panels = sv.pl.loadings(fitted, [3, 0], n_genes=7, show=False)
    for panel, factor in zip(panels, [3, 0], strict=True):
        values = dict(zip(fitted.var_names, fitted.varm["ldvae_loadings"][:, factor], strict=True))
        values = {name: value for name, value in values.items() if not np.isnan(value)}
        top = sorted(sorted(values, key=lambda name: -abs(values[name]))[:7], key=values.get)
        assert [label.get_text() for label in panel.get_yticklabels()] == top
        np.testing.assert_allclose([bar.get_width() for bar in panel.patches], [values[name] for name in top])
        colors = [ORANGE if values[name] > 0 else BLUE for name in top]
        assert [to_hex(bar.get_facecolor()) for bar in panel.patches] == [c.lower() for c in colors]
    assert [panel.get_title() for panel in panels] == ["factor 3 (15%)", "factor 0 (10%)"]


def test_the_six_that_explain_most_are_drawn(fitted):
    titles = [panel.get_title() for panel in sv.pl.loadings(fitted, show=False)]
    assert [title.split(" (")[0] for title in titles] == [f"factor {i}" for i in (1, 2, 3, 0, 4, 6)]


def test_maps_have_the_values_of_their_factor(fitted):
    panels = sv.pl.loadings(fitted, [0, 5], basis="umap", show=False)
    assert len(panels) == 4
    for panel, factor in zip(panels[1::2], [0, 5], strict=True):
        (points,) = panel.collections
        place = {tuple(np.round(p, 6)): v for p, v in zip(points.get_offsets(), points.get_array(), strict=True)}
        for row in range(20):
            key = tuple(np.round(fitted.obsm["X_umap"][row], 6))
            assert place[key] == pytest.approx(fitted.obsm["X_ldvae"][row, factor])
        assert points.get_clim()[0] == -points.get_clim()[1]


def test_gene_sets_go_by_their_names_and_show_only_their_genes(fitted):
    names = [f"REACTOME_A_RATHER_LONG_NAME_OF_SOME_GENE_SET_{i}" for i in range(8)]
    fitted.uns["ldvae"]["gene_sets"] = np.array(names, dtype=object)
    fitted.varm["ldvae_loadings"][8:, 2] = 0
    (panel,) = sv.pl.loadings(fitted, names[2], show=False)
    assert len(panel.patches) == 6  # of the first eight, two are not modelled
    assert panel.get_title() == "REACTOME A RATHER LONG NAME OF\nSOME GENE SET 2 (20%)"


def test_given_axes_take_one_factor(fitted):
    figure, ax = plt.subplots()
    assert sv.pl.loadings(fitted, 1, ax=ax, show=False) is ax
    assert figure.axes == [ax]
    with pytest.raises(ValueError, match="Leave it out"):
        sv.pl.loadings(fitted, [0, 1], ax=ax)
    with pytest.raises(ValueError, match="Leave it out"):
        sv.pl.loadings(fitted, 0, basis="umap", ax=ax)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"factors": [8]}, "from 0 to 7"),
        ({"factors": ["x"]}, "'x'"),
        ({"factors": []}, "nothing"),
        ({"key": "vega"}, "varm has no 'vega_loadings'"),
        ({"basis": "tsne"}, "neither 'tsne'"),
    ],
)
def test_what_is_not_there_is_named(options, match, fitted):
    with pytest.raises(KeyError, match=match):
        sv.pl.loadings(fitted, **options)


def test_picture(fitted):
    assert_same_picture(sv.pl.loadings(fitted, return_fig=True), "loadings")


def test_picture_with_maps(fitted):
    assert_same_picture(sv.pl.loadings(fitted, [0, 1, 2], basis="umap", return_fig=True), "loadings_maps")
