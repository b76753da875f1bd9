import anndata as ad
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from pictures import assert_same_picture

import scanpy_scvi as sv


@pytest.fixture(autouse=True)
def _no_windows():
    mpl.use("agg")
    yield
    plt.close("all")


@pytest.fixture
def judged():
    """Columns as `tl` stores them, without fitting anything."""
    rng = np.random.default_rng(0)
    at = np.concatenate([rng.normal(c, 0.5, (150, 2)) for c in ((0, 0), (4, 1), (1, 4))])
    far = np.linalg.norm(at - at.round(), axis=1)
    adata = ad.AnnData(np.ones((450, 2), np.float32), obsm={"X_umap": at})
    adata.obs["scvi_novelty"] = far / far.max()
    adata.obs["scvi_bound_percentile"] = (1 + rng.permutation(450)) / 451
    adata.obs["scvi_latent_uncertainty"] = rng.uniform(0.1, 0.3, 450)
    adata.obs["scvi_trust"] = np.sqrt(adata.obs["scvi_bound_percentile"] * (1 - adata.obs["scvi_novelty"]))
    return adata


def test_panels_show_the_stored_columns_with_the_worst_on_top(judged):
    axes = sv.pl.trust(judged, show=False)
    assert [ax.get_title() for ax in axes] == ["trust", "bound percentile", "novelty", "latent uncertainty"]
    for ax, name, low_is_bad in zip(
        axes, ("trust", "bound_percentile", "novelty", "latent_uncertainty"), (True, True, False, False), strict=True
    ):
        (points,) = ax.collections
        values = judged.obs[f"scvi_{name}"].to_numpy()
        drawn = points.get_array()
        np.testing.assert_array_equal(drawn, np.sort(values)[:: -1 if low_is_bad else 1])
        worst = values.argmin() if low_is_bad else values.argmax()
        np.testing.assert_allclose(points.get_offsets()[-1], judged.obsm["X_umap"][worst])
        r, g, b, _ = points.to_rgba(drawn)[-1]
        assert 0.2 * r + 0.7 * g + 0.1 * b < 0.2, "the worst cell is dark"


def test_one_column_in_the_given_axes(judged):
    ax = plt.subplots()[1]
    assert sv.pl.trust(judged, "X_umap", columns="novelty", ax=ax, show=False) == [ax]
    axes = plt.subplots(1, 2)[1]
    assert sv.pl.trust(judged, columns=["trust", "novelty"], ax=axes, show=False) == list(axes)


def test_what_is_missing_is_named(judged):
    with pytest.raises(KeyError, match=r"Run sv\.tl\.trust first"):
        sv.pl.trust(judged, key="other")
    with pytest.raises(KeyError, match=r"sc\.tl\.umap"):
        sv.pl.trust(judged, "tsne")
    with pytest.raises(ValueError, match="'doubt'"):
        sv.pl.trust(judged, columns=["doubt"])
    with pytest.raises(ValueError, match="4 panels"):
        sv.pl.trust(judged, ax=plt.subplots()[1])


def test_picture(judged):
    assert_same_picture(sv.pl.trust(judged, return_fig=True), "trust")
