import matplotlib.pyplot as plt
import numpy as np
import pytest
from pictures import assert_same_picture

import scanpy_scvi as sv


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


@pytest.fixture
def marginal():
    """300 genes as `pp.fit_dispersion` stores them: NB and ZINB agree but for some genes with inflated zeros."""
    rng = np.random.default_rng(0)
    adata = sv.datasets.simulate(n_cells=3, n_genes=300)
    mean, theta = np.exp(rng.uniform(-3, 4, 300)), np.exp(rng.normal(0.5, 0.5, 300))
    nb = mean + mean**2 / theta
    pi = np.where(np.arange(300) < 30, 0.4, 0.0)
    adata.var["m_mean"], adata.var["m_dispersion"], adata.var["m_zero_inflation"] = mean / (1 - pi), theta, pi
    adata.var["m_variance"] = nb * np.exp(rng.normal(0, 0.2, 300))
    adata.var["m_variance_nb"], adata.var["m_variance_zinb"] = nb * (1 + pi), nb
    return adata


def test_variances_are_the_stored_ones(marginal):
    left, right = sv.pl.dispersion(marginal, "m", kind="variance", show=False)
    mean = marginal.var["m_mean"] * (1 - marginal.var["m_zero_inflation"])
    np.testing.assert_allclose(points(left)[0], np.c_[mean, marginal.var["m_variance"]])
    for drawn, name in zip(points(right), ["m_variance_nb", "m_variance_zinb"], strict=True):
        np.testing.assert_allclose(drawn, np.c_[mean, marginal.var[name] / marginal.var["m_variance"]])
    nb, zinb, poisson = left.lines
    np.testing.assert_array_equal(poisson.get_xdata(), poisson.get_ydata())
    assert [line.get_label() for line in left.lines] == ["NB, median", "ZINB, median", "Poisson"]
    x, y = nb.get_data()  # a median over genes of a similar mean lies among them
    assert len(x) == 10
    assert mean.min() < x[0] < x[-1] < mean.max()
    assert (np.diff(y) > 0).all()
    assert (zinb.get_ydata() <= y).all()


def test_given_axes_take_the_variances_alone(marginal):
    figure, ax = plt.subplots()
    assert sv.pl.dispersion(marginal, "m", kind="variance", ax=ax, show=False) is ax
    assert figure.axes == [ax]


def test_variances_ask_for_what_wrote_them(marginal):
    with pytest.raises(KeyError, match=r"has no 'scvi_variance'. Pass key='m'"):
        sv.pl.dispersion(marginal, kind="variance")
    with pytest.raises(ValueError, match="one of 'dispersion', 'variance'"):
        sv.pl.dispersion(marginal, "m", kind="both")


@pytest.mark.parametrize("kind", ["dispersion", "variance"])
def test_picture(marginal, kind):
    assert_same_picture(sv.pl.dispersion(marginal, "m", kind=kind, return_fig=True), f"dispersion_{kind}")
