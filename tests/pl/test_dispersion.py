import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

import scanpy_scvi as sv


@pytest.fixture(autouse=True)
def _no_windows():
    mpl.use("agg")
    yield
    plt.close("all")


@pytest.fixture
def adata():
    """Simulated counts, their true dispersions under the key `true`."""
    return sv.datasets.simulate(n_cells=300, n_genes=40, density=0.4)


def points(ax):
    return [np.asarray(collection.get_offsets()) for collection in ax.collections]


def test_each_gene_is_a_point_at_its_mean_and_dispersion(adata):
    ax = sv.pl.dispersion(adata, "true", show=False)
    (drawn,) = points(ax)
    mean = np.asarray(adata.X.mean(axis=0)).ravel()
    np.testing.assert_allclose(drawn, np.c_[mean, adata.var["true_dispersion"]])
    assert ax.get_xscale() == ax.get_yscale() == "log"


def test_line_is_where_the_variance_is_twice_the_mean(adata):
    ax = sv.pl.dispersion(adata, "true", show=False)
    (line,) = ax.lines
    mu, theta = line.get_xydata().T
    np.testing.assert_allclose(mu + mu**2 / theta, 2 * mu)


def test_genes_without_dispersion_or_counts_are_left_out(adata):
    adata.var.loc["gene_0", "true_dispersion"] = np.nan
    adata.X = adata.X.multiply(np.arange(40) != 7).tocsr()
    (drawn,) = points(sv.pl.dispersion(adata, "true", show=False))
    assert len(drawn) == 38


def test_stored_means_and_the_layer_of_the_fit_are_used(adata):
    adata.layers["counts"] = 2 * adata.X
    adata.uns["true"] = {"params": {"layer": "counts"}}
    (drawn,) = points(sv.pl.dispersion(adata, "true", show=False))
    np.testing.assert_allclose(drawn[:, 0], 2 * np.asarray(adata.X.mean(axis=0)).ravel())
    adata.var["true_mean"] = 5.0
    (drawn,) = points(sv.pl.dispersion(adata, "true", show=False))
    assert (drawn[:, 0] == 5).all()


def test_a_dispersion_per_batch_is_drawn_per_batch():
    adata = sv.datasets.simulate(n_cells=120, n_genes=40, density=0.4)
    sv.tl.scvi(adata, batch_key="batch", dispersion="gene-batch", max_epochs=2, n_latent=3, progress=False)
    ax = sv.pl.dispersion(adata, show=False)
    assert ax.get_legend_handles_labels()[1][:2] == ["batch_0", "batch_1"]
    for drawn, theta in zip(points(ax), adata.varm["scvi_dispersion"].T, strict=True):
        np.testing.assert_allclose(np.sort(drawn[:, 1]), np.sort(theta), rtol=1e-6)


def test_draws_where_told_and_shows_when_told(adata, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    ax = plt.subplots()[1]
    assert sv.pl.dispersion(adata, "true", ax=ax, show=False) is ax
    assert sv.pl.dispersion(adata, "true", show=True) is None
    assert shown == [True]


def test_a_missing_key_names_those_that_are_there(adata):
    with pytest.raises(KeyError, match=r"has 'scvi_dispersion'. Pass key='true'"):
        sv.pl.dispersion(adata)
    del adata.var["true_dispersion"]
    with pytest.raises(KeyError, match=r"Run sv.tl.scvi or sv.pp.fit_dispersion first"):
        sv.pl.dispersion(adata)
