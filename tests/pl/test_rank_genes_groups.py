import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import scanpy_scvi as sv

KEY = "rank_genes_groups_scvi"
KINDS = ["dotplot", "matrixplot", "stacked_violin", "heatmap", "tracksplot", "panel"]


@pytest.fixture(scope="module")
def result(fitted):
    adata = fitted.copy()
    sv.tl.rank_genes_groups(adata, "label", n_samples=300)
    return adata


@pytest.fixture
def adata(result):
    return result.copy()


def best(adata, n):
    return [str(gene) for names in adata.uns[KEY]["names"][:n].tolist() for gene in names]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_draws_the_best_genes(adata, kind):
    figure = sv.pl.rank_genes_groups(adata, kind, n_genes=2, return_fig=True)
    texts = {text.get_text() for text in figure.findobj(plt.Text)}
    assert set(best(adata, 2)) <= texts
    axes = sv.pl.rank_genes_groups(adata, kind, n_genes=2, show=False)
    assert all(isinstance(ax, plt.Axes) for ax in axes)
    assert "dendrogram_label" not in adata.uns


def drawn_dots(adata, **options):
    """Dots of a plot as scanpy lays them out: color and size of each group and gene."""
    made = []
    real = sc.pl.rank_genes_groups_dotplot
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sc.pl, "rank_genes_groups_dotplot", lambda *a, **k: made.append(real(*a, **k)) or made[0])
        sv.pl.rank_genes_groups(adata, show=False, **options)
    return made[0].dot_color_df, made[0].dot_size_df


def test_colour_is_denoised_and_size_is_counted(adata):
    color, size = drawn_dots(adata, n_genes=3)
    means = adata.to_df("scvi_normalized").groupby(adata.obs["label"].to_numpy()).mean()[list(color)]
    expected = (means - means.min()) / (means.max() - means.min())
    np.testing.assert_allclose(color.to_numpy(), expected.to_numpy(), atol=1e-5)
    counted = (adata.to_df() > 0).groupby(adata.obs["label"].to_numpy()).mean()
    np.testing.assert_allclose(size.to_numpy(), counted[list(size)].to_numpy())
    assert size.to_numpy().min() < 0.9  # denoised expression alone would have made all of them full
    table = sv.get.rank_genes_groups_df(adata, "label_0").set_index("names")
    np.testing.assert_allclose(size.loc["label_0"], table.loc[list(size), "nonzero1"], rtol=1e-6)


def test_sizes_follow_the_counts_of_the_fit_and_what_scanpy_is_told(adata):
    expected = drawn_dots(adata)[1]
    adata.layers["counts"], adata.X = adata.X.copy(), adata.X * 0
    adata.uns["scvi"]["params"]["layer"] = "counts"
    pd.testing.assert_frame_equal(drawn_dots(adata)[1], expected)
    assert (drawn_dots(adata, expression_cutoff=0.0)[1] == 1).all(axis=None)
    adata.var["symbol"] = [f"s_{name}" for name in adata.var_names]
    by_symbol = drawn_dots(adata, gene_symbols="symbol")[1]
    assert list(by_symbol) == [f"s_{name}" for name in expected]
    np.testing.assert_array_equal(by_symbol.to_numpy(), expected.to_numpy())


def test_options_reach_scanpy(adata):
    genes = list(adata.var_names[:3])
    color, _ = drawn_dots(adata, var_names=genes, standard_scale=None)
    means = adata.to_df("scvi_normalized").groupby(adata.obs["label"].to_numpy()).mean()
    np.testing.assert_allclose(color[genes].to_numpy(), means[genes].to_numpy(), rtol=1e-5)
    changes, _ = drawn_dots(adata, var_names=genes, values_to_plot="logfoldchanges")
    stored = sc.get.rank_genes_groups_df(adata, "label_1", key=KEY).set_index("names")["logfoldchanges"]
    np.testing.assert_allclose(changes.loc["label_1", genes], stored[genes], rtol=1e-6)
    raw, _ = drawn_dots(adata, var_names=genes, standard_scale=None, layer=None)
    np.testing.assert_allclose(
        raw[genes].to_numpy(), adata.to_df().groupby(adata.obs["label"].to_numpy()).mean()[genes].to_numpy(), rtol=1e-5
    )


def test_a_stored_dendrogram_is_drawn(adata):
    without = len(sv.pl.rank_genes_groups(adata, "matrixplot", show=False))
    sc.tl.dendrogram(adata, "label", use_rep="X_scvi")
    assert len(sv.pl.rank_genes_groups(adata, "matrixplot", show=False)) == without + 1


@pytest.mark.parametrize("kind", ["dotplot", "matrixplot", "stacked_violin", "panel"])
def test_draws_where_told(adata, kind):
    figure, ax = plt.subplots()
    drawn = sv.pl.rank_genes_groups(adata, kind, n_genes=2, ax=ax, show=False)
    assert {each.get_figure() for each in drawn} == {figure}


def test_saves_where_scanpy_saves(adata, monkeypatch, tmp_path):
    monkeypatch.setattr(sc.settings, "_figdir", tmp_path)
    sv.pl.rank_genes_groups(adata, "matrixplot", n_genes=2, save="_a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["rank_genes_groups_matrixplot_a.png"]


def test_errors_say_what_to_do(adata):
    with pytest.raises(ValueError, match="one of 'dotplot'"):
        sv.pl.rank_genes_groups(adata, "violin")
    with pytest.raises(ValueError, match="heatmap makes a figure of its own"):
        sv.pl.rank_genes_groups(adata, "heatmap", ax=plt.subplots()[1])
    with pytest.raises(KeyError, match=f"Pass key='{KEY}'"):
        sv.pl.rank_genes_groups(adata, key="none")
    del adata.layers["scvi_normalized"]
    with pytest.raises(KeyError, match=r"Run sv\.tl\.normalized_expression, or pass `layer`"):
        sv.pl.rank_genes_groups(adata)
