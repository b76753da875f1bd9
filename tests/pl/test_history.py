import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pytest
import scanpy as sc
from pictures import assert_same_picture

import scanpy_scvi as sv


@pytest.fixture
def fitted():
    """A fit as `tl` stores it, without fitting anything."""
    epoch = np.arange(1, 41)
    validation = -400 - 300 * np.exp(-epoch / 4) - 0.002 * epoch**2
    history = {
        "epoch": epoch,
        "train_elbo": validation + epoch / 4,
        "validation_elbo": validation,
        "kl": 12 + 8 * np.exp(-epoch / 6),
        "kl_weight": np.ones(40),
        "learning_rate": 0.01 * np.minimum(epoch / 4, 1),
    }
    best = int(validation.argmax())
    end = {"verdict": "converged", "message": "…", "best_epoch": best + 1, "best_elbo": float(validation[best])}
    adata = ad.AnnData(np.ones((3, 2), np.float32))
    adata.uns["fit"] = {"schema": 1, "spec": "{}", "history": history, "convergence": end}
    return adata


def bound(adata):
    return sv.pl.history(adata, "fit", show=False)[0]


def test_curves_are_the_stored_ones(fitted):
    panels = sv.pl.history(fitted, "fit", show=False)
    stored = fitted.uns["fit"]["history"]
    lines = {line.get_label(): line for line in panels[0].lines}
    np.testing.assert_array_equal(lines["training cells"].get_xydata(), np.c_[stored["epoch"], stored["train_elbo"]])
    np.testing.assert_array_equal(lines["held-out cells"].get_ydata(), stored["validation_elbo"])
    for panel, name in zip(panels[1:], ["kl", "learning_rate"], strict=True):
        np.testing.assert_array_equal(panel.lines[0].get_xydata(), np.c_[stored["epoch"], stored[name]])
    assert panels[0].get_title() == "fit: converged"
    assert [panel.get_ylabel() for panel in panels] == ["ELBO (nats per cell)", "KL (nats)", "learning rate"]
    assert [panel.get_xlabel() for panel in panels] == ["", "", "epoch"]


def test_kept_epoch_is_marked_in_every_panel(fitted):
    best = fitted.uns["fit"]["convergence"]["best_epoch"]
    for panel in sv.pl.history(fitted, "fit", show=False):
        assert [line.get_xdata()[0] for line in panel.lines if line.get_linestyle() == ":"] == [best]


def test_weight_of_the_kl_is_drawn_where_it_changes(fitted):
    fitted.uns["fit"]["history"]["kl_weight"] = np.linspace(0, 1, 40)
    panels = sv.pl.history(fitted, "fit", show=False)
    assert [panel.get_ylabel() for panel in panels][1:] == ["KL (nats)", "KL weight", "learning rate"]


def test_given_axes_take_the_bound_alone(fitted):
    figure, ax = plt.subplots()
    assert sv.pl.history(fitted, "fit", ax=ax, show=False) is ax
    assert figure.axes == [ax]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "ELBO (nats per cell)")


def test_best_epoch_is_marked_on_the_curve(fitted):
    ax = bound(fitted)
    (mark,) = [line for line in ax.lines if line.get_marker() == "o"]
    best = fitted.uns["fit"]["history"]["validation_elbo"].argmax()
    assert mark.get_xydata().tolist() == [[best + 1, fitted.uns["fit"]["history"]["validation_elbo"][best]]]
    assert f"epoch {best + 1}" in mark.get_label()


def test_the_steep_start_does_not_hide_the_rest(fitted):
    low, high = bound(fitted).get_ylim()
    validation = fitted.uns["fit"]["history"]["validation_elbo"]
    assert validation[0] < low < validation[8]
    assert high > fitted.uns["fit"]["history"]["train_elbo"].max()


def test_without_held_out_cells_there_is_one_curve(fitted):
    fitted.uns["fit"]["history"]["validation_elbo"] = np.full(40, np.nan)
    ax = bound(fitted)
    assert "held-out cells" not in ax.get_legend_handles_labels()[1]


def test_one_epoch_is_enough(fitted):
    for name, values in fitted.uns["fit"]["history"].items():
        fitted.uns["fit"]["history"][name] = values[:1]
    fitted.uns["fit"]["convergence"]["best_epoch"] = 1
    assert bound(fitted).get_title() == "fit: converged"


def test_draws_where_told_and_shows_as_scanpy_does(fitted, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    ax = plt.subplots()[1]
    assert sv.pl.history(fitted, "fit", ax=ax, show=False) is ax
    assert not shown
    assert sv.pl.history(fitted, "fit", show=True) is None
    assert shown == [True]
    monkeypatch.setattr(sc.settings, "_autoshow", False)
    assert sv.pl.history(fitted, "fit") is not None
    monkeypatch.setattr(sc.settings, "_autoshow", True)
    assert sv.pl.history(fitted, "fit") is None
    assert shown == [True, True]


def test_without_a_fit_the_keys_are_named(fitted):
    with pytest.raises(KeyError, match="Pass key='fit'"):
        sv.pl.history(fitted)


def test_saves_where_scanpy_saves_and_returns_the_figure(fitted, monkeypatch, tmp_path):
    monkeypatch.setattr(sc.settings, "_autoshow", True)
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("saved figures are not shown"))
    monkeypatch.setattr(sc.settings, "_figdir", tmp_path / "figures")
    ax = sv.pl.history(fitted, "fit", save="_a.png")
    figure = sv.pl.history(fitted, "fit", save=True, return_fig=True)
    assert figure is not ax[0].get_figure()
    assert figure.axes[0].get_title() == "fit: converged"
    saved = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert saved == sorted(["history_a.png", f"history.{sc.settings.file_format_figs}"])


def test_picture(fitted):
    assert_same_picture(sv.pl.history(fitted, "fit", return_fig=True), "history")
