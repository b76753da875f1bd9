import matplotlib.pyplot as plt
import numpy as np
import pytest
from pictures import assert_same_picture
from scipy import stats
from svae_tables import svae_adata

import scanpy_scvi as sv


@pytest.fixture
def fitted():
    return svae_adata(60)


def test_bars_count_gates_by_probability_and_kind(fitted):
    ax = sv.pl.svae_diagnostics(fitted, show=False)[0]
    targets = fitted.uns["svae"]["targets"]
    closed, opened = (sum(bar.get_height() for bar in bars) for bars in ax.containers)
    assert (closed, opened) == ((~targets["is_target"]).sum(), targets["is_target"].sum())
    low = sum(bar.get_height() for bar in ax.containers[0] if bar.get_x() < 0.4999)
    assert low == ((targets["probability"] < 0.5) & ~targets["is_target"]).sum()
    assert ax.get_title().startswith(f"{opened:.0f} of {len(targets)} gates open")


def test_the_path_of_the_gates_is_the_stored_one(fitted):
    ax = sv.pl.svae_diagnostics(fitted, show=False)[1]
    density = fitted.uns["svae"]["gate_density"]
    np.testing.assert_allclose(ax.lines[0].get_xydata(), np.c_[np.arange(1, 31), density])
    assert ax.get_ylim()[0] == 0
    assert ax.get_title() == f"in the end {density[-1]:.1%}"


def test_targets_stand_against_cells(fitted):
    ax = sv.pl.svae_diagnostics(fitted, show=False)[2]
    table = fitted.uns["svae"]["perturbations"]
    np.testing.assert_allclose(ax.collections[0].get_offsets(), table[["n_cells", "n_targets"]])
    rank = stats.spearmanr(table["n_cells"], table["n_targets"]).statistic
    assert ax.get_title() == f"rank correlation {rank:.2f}"


def test_null_shifts_are_drawn_against_normal_quantiles_with_the_rule(fitted):
    entry = fitted.uns["svae"]
    ax = sv.pl.svae_diagnostics(fitted, show=False)[3]
    x, y = ax.collections[0].get_offsets().T
    np.testing.assert_allclose(y, np.sort((entry["null_shifts"] / entry["null_errors"]).ravel()))
    np.testing.assert_allclose(stats.norm.cdf(x), (np.arange(240) + 0.5) / 240)
    assert [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--"] == [-3, 3]
    assert ax.get_title() == "0 of 40 null splits would have a target"


def test_null_splits_that_would_have_a_target_are_counted_by_the_whole_rule(fitted):
    entry = fitted.uns["svae"]
    entry["null_errors"][:] = 0.1
    entry["null_shifts"][:] = 0.0
    entry["null_shifts"][0, 0] = 0.45  # many errors, but too small
    entry["null_shifts"][1, 1] = 0.55
    entry["null_shifts"][2, :2] = -0.7, 0.6
    entry["null_shifts"][3, 2], entry["null_errors"][3] = 0.8, 0.3  # large, but not sure
    assert sv.pl.svae_diagnostics(fitted, show=False)[3].get_title() == "2 of 40 null splits would have a target"


def test_without_control_or_gates_their_panels_are_left_out():
    adata = svae_adata(10, control=False)
    assert len(sv.pl.svae_diagnostics(adata, show=False)) == 3
    adata.uns["svae"]["gate_density"] = np.empty(0)
    labels = [ax.get_ylabel() for ax in sv.pl.svae_diagnostics(adata, show=False)]
    assert labels == ["gates", "targets"]


def test_equal_numbers_of_cells_have_no_rank_correlation(fitted):
    fitted.uns["svae"]["perturbations"]["n_cells"] = 100
    assert sv.pl.svae_diagnostics(fitted, show=False)[2].get_title() == ""


def test_given_axes_take_the_probabilities_alone(fitted):
    figure, ax = plt.subplots()
    assert sv.pl.svae_diagnostics(fitted, ax=ax, show=False) is ax
    assert figure.axes == [ax]
    with pytest.raises(KeyError, match="Pass key='svae'"):
        sv.pl.svae_diagnostics(fitted, "scvi")


def test_picture(fitted):
    assert_same_picture(sv.pl.svae_diagnostics(fitted, return_fig=True), "svae_diagnostics")
