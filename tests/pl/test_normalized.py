import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from pictures import assert_same_picture
from scipy import sparse

import scanpy_scvi as sv


@pytest.fixture
def adata():
    """Counts and denoised expression of 300 cells, without a fit; a tenth of the genes is not modelled."""
    adata = sv.datasets.simulate(n_cells=300, n_genes=40, density=0.4)
    adata.var["scvi_modelled"] = np.arange(40) < 36
    counts = adata.X.toarray()
    total = counts[:, :36].sum(axis=1)
    smooth = pd.DataFrame(counts / total[:, None] * 1e4).groupby(adata.obs["label"].to_numpy()).transform("mean")
    noise = np.random.default_rng(0).lognormal(0, 0.2, smooth.shape)
    layer = (smooth.to_numpy() * noise).astype(np.float32)
    layer[:, 36:] = np.nan
    adata.layers["scvi_normalized"] = layer
    adata.uns["scvi"] = {"params": {}}
    return adata


def per_10k(adata, gene):
    counts = adata.X.toarray()
    return counts[:, adata.var_names.get_loc(gene)] / counts[:, :36].sum(axis=1) * 1e4


def test_each_cell_is_a_point(adata):
    panels = sv.pl.normalized(adata, ["gene_3", "gene_1"], show=False)
    assert [panel.get_title() for panel in panels] == ["gene_3", "gene_1"]
    for panel in panels:
        gene = panel.get_title()
        expected = np.log1p(np.c_[per_10k(adata, gene), adata[:, gene].layers["scvi_normalized"]])
        np.testing.assert_allclose(panel.collections[0].get_offsets(), expected, rtol=1e-5)
        for axis, values in ((panel.xaxis, expected[:, 0]), (panel.yaxis, expected[:, 1])):
            labels = [float(t.get_text().replace(",", "")) for t in axis.get_ticklabels()]
            np.testing.assert_allclose(np.expm1(axis.get_ticklocs()), labels)
            assert axis.get_view_interval()[0] < values.min()
            assert values.max() < axis.get_view_interval()[1]


@pytest.mark.parametrize(
    "scale", ["counts per 1", "counts at the cell's own library size", "squared mean roots of counts per 1"]
)
def test_a_layer_on_another_scale_is_brought_to_that_of_the_axes(adata, scale):
    expected = sv.pl.normalized(adata, "gene_3", show=False)[0].collections[0].get_offsets()
    total = adata.X.toarray()[:, :36].sum(axis=1, keepdims=True)
    adata.layers["scvi_normalized"] *= 1e-4 if scale.endswith(" 1") else total / 1e4
    adata.uns["scvi"]["denoised_scale"] = scale
    found = sv.pl.normalized(adata, "gene_3", show=False)[0].collections[0].get_offsets()
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_means_of_groups_are_marked(adata):
    (panel,) = sv.pl.normalized(adata, "gene_3", groupby="label", show=False)
    table = pd.DataFrame(
        {"raw": per_10k(adata, "gene_3"), "denoised": adata[:, "gene_3"].layers["scvi_normalized"][:, 0]}
    )
    means = table.groupby(adata.obs["label"].to_numpy()).mean()
    dots = np.array([line.get_xydata()[0] for line in panel.lines])
    order = np.argsort(dots[:, 0])  # raw is left of denoised, group after group
    np.testing.assert_allclose(np.expm1(dots[order, 1]), means.to_numpy().ravel(), rtol=1e-5)
    assert [t.get_text() for t in panel.get_xticklabels()] == list(means.index)
    assert panel.get_ylabel() == "counts per 10,000"


def test_halves_lie_where_the_values_do(adata):
    (panel,) = sv.pl.normalized(adata, "gene_3", groupby="label", show=False)
    halves = [collection.get_paths()[0].vertices for collection in panel.collections]
    assert len(halves) == 6
    raw = np.log1p(per_10k(adata, "gene_3"))
    for code, name in enumerate(adata.obs["label"].cat.categories):
        left, right = halves[code], halves[3 + code]
        assert left[:, 0].min() == pytest.approx(code - 0.42)
        assert right[:, 0].max() == pytest.approx(code + 0.42)
        own = raw[adata.obs["label"] == name]
        mass = np.interp(own, left[:200, 1], np.abs(left[:200, 0] - code)) if left[1, 0] != code else None
        widest = left[np.argmin(left[:, 0]), 1]
        assert mass is None or mass.min() >= 0
        assert own.min() - 0.4 < widest < own.max() + 0.4


def test_a_gene_without_counts_and_groups_of_one_cell(adata):
    adata.X = adata.X.multiply(np.arange(40) != 3).tocsr()
    adata.obs["label"] = ["alone", *["others"] * 299]
    for groupby in (None, "label"):
        figure = sv.pl.normalized(adata, ["gene_3", "gene_4"], groupby=groupby, return_fig=True)
        figure.draw_without_rendering()


@pytest.mark.parametrize("kind", ["dense", "csc", "layer", "sparse layer"])
def test_counts_may_be_anywhere(adata, kind):
    expected = sv.pl.normalized(adata, "gene_3", show=False)[0].collections[0].get_offsets()
    if kind == "dense":
        adata.X = adata.X.toarray()
    elif kind == "csc":
        adata.X = adata.X.tocsc()
    elif kind == "layer":
        adata.layers["counts"], adata.X = adata.X.copy(), np.log1p(adata.X.toarray())
        adata.uns["scvi"]["params"]["layer"] = "counts"
    else:
        adata.layers["scvi_normalized"] = sparse.csr_matrix(adata.layers["scvi_normalized"])
    drawn = sv.pl.normalized(adata, "gene_3", show=False)[0].collections[0].get_offsets()
    np.testing.assert_allclose(drawn, expected, rtol=1e-6)


def test_one_gene_may_have_axes(adata):
    ax = plt.subplots()[1]
    assert sv.pl.normalized(adata, "gene_3", groupby="label", ax=ax, show=False) == [ax]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["raw", "denoised", "mean"]
    with pytest.raises(ValueError, match="2 genes were passed"):
        sv.pl.normalized(adata, ["gene_3", "gene_1"], ax=ax)


def test_errors_say_what_is_missing(adata):
    with pytest.raises(KeyError, match="Not modelled: 'gene_38'"):
        sv.pl.normalized(adata, ["gene_3", "gene_38"])
    with pytest.raises(KeyError, match="has no 'other_modelled'"):
        sv.pl.normalized(adata, "gene_3", key="other")
    with pytest.raises(KeyError, match=r"adata\.obs has"):
        sv.pl.normalized(adata, "gene_3", groupby="cell_type")
    adata.layers["scvi_normalized"][:, 3] = np.nan
    with pytest.raises(KeyError, match="was made without some of the genes"):
        sv.pl.normalized(adata, "gene_3")
    del adata.layers["scvi_normalized"]
    with pytest.raises(KeyError, match=r"Run sv\.tl\.normalized_expression"):
        sv.pl.normalized(adata, "gene_3")


def test_after_a_fit(fitted):
    genes = list(fitted.var_names[:2])
    panels = sv.pl.normalized(fitted, genes, groupby="label", show=False)
    drawn = max(line.get_ydata()[0] for line in panels[0].lines)
    assert drawn <= np.log1p(fitted[:, genes[0]].layers["scvi_normalized"].max() + 1e4)


@pytest.mark.parametrize(("groupby", "name"), [("label", "violins"), (None, "cells")])
def test_picture(adata, groupby, name):
    genes = [f"gene_{i}" for i in range(4)]
    assert_same_picture(sv.pl.normalized(adata, genes, groupby=groupby, return_fig=True), f"normalized_{name}")
