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
def walked():
    """A path as `tl` stores it, without fitting anything."""
    t = np.linspace(0, 1, 30)
    factor = np.array([0, 0.1, 3, -3, 2, -2, 1, 0.5, 4])
    expression = np.exp(factor * (t[:, None] - 0.5) * 2) * 10
    expression[:, 8] /= 1e4  # changes much, but is hardly expressed
    adata = ad.AnnData(np.ones((3, 2), np.float32))
    adata.uns["path"] = {
        "params": {"source": "B", "target": "CD14+ monocytes", "library_size": 1e4},
        "position": t,
        "log_density": -14 - 20 * np.exp(-(((t - 0.6) / 0.15) ** 2)),
        "usual_log_density": np.array([-22.0, -14.5, -12.0]),
        "expression": expression,
        "genes": np.array([f"gene_{i}" for i in range(9)], object),
    }
    return adata


def test_lines_are_the_stored_ones(walked):
    top, bottom = sv.pl.interpolation(walked, ["gene_2", "gene_1"], key="path", show=False)
    stored = walked.uns["path"]
    assert [line.get_label() for line in top.lines] == ["gene_2", "gene_1"]
    np.testing.assert_array_equal(top.lines[0].get_xydata(), np.c_[stored["position"], stored["expression"][:, 2]])
    np.testing.assert_array_equal(bottom.lines[-1].get_ydata(), stored["log_density"])
    band = bottom.patches[0].get_extents().transformed(bottom.transData.inverted())
    np.testing.assert_allclose([band.y0, band.y1], [-22, -12])
    assert top.get_title() == "B → CD14+ monocytes"


def test_genes_that_change_most_are_chosen_among_those_expressed(walked):
    top, _ = sv.pl.interpolation(walked, key="path", show=False)
    assert {line.get_label() for line in top.lines} == {f"gene_{i}" for i in (2, 3, 4, 5, 6, 7)}


def test_draws_where_told(walked):
    axes = plt.subplots(2, 1)[1]
    assert sv.pl.interpolation(walked, "gene_1", key="path", ax=axes, show=False) == list(axes)
    with pytest.raises(ValueError, match="two are needed"):
        sv.pl.interpolation(walked, key="path", ax=axes[:1])


def test_what_is_missing_is_named(walked):
    with pytest.raises(KeyError, match="Pass key='path'"):
        sv.pl.interpolation(walked)
    with pytest.raises(KeyError, match="nothing"):
        sv.pl.interpolation(walked, "nothing", key="path")


def test_picture(walked):
    assert_same_picture(sv.pl.interpolation(walked, key="path", return_fig=True), "interpolation")
