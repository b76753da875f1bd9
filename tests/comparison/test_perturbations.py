"""The scripts on simulated perturbations, at a size that says nothing about the systems."""

import numpy as np
import perturbations_table
import pytest
from perturbations_data import CONTROL, KEY, scored_cells, screen_of, simulated, with_null
from perturbations_scores import null_scores
from result_lines import read_lines

SMALL = ["--n-perturbations", "10", "--cells", "40", "--epochs", "2", "--seeds", "0"]
SIZE = {"n_perturbations": 10, "cells_per_perturbation": 40}


@pytest.fixture(scope="module")
def controlled():
    return simulated({"protocol": "corrected"}, 0, {"n_perturbations": 20, "cells_per_perturbation": 200})


def test_a_run_is_resumed_and_its_table_has_every_system(tmp_path, capsys):
    out = tmp_path / "lines.jsonl"
    options = ["--out", str(out), *SMALL, "--data", "reference", "--systems"]
    perturbations_table.main([*options, "PCA + rotation"])
    perturbations_table.main([*options, "PCA + rotation", "VAE + rotation", "default"])
    lines = read_lines(out)
    found = [(line["system"], line["fit_seed"]) for line in lines]
    wanted = ("PCA + rotation", "VAE + rotation", "default")
    assert sorted(found) == sorted((name, seed) for name in wanted for seed in (0, 1000))
    assert all(0 <= line[key] <= 1 for line in lines for key in ("mcc", "r2", "f1", "auprc", "density"))
    assert all(np.isfinite(line["bound"]) for line in lines if line["system"] == "default")
    capsys.readouterr()
    perturbations_table.main([*options, *wanted, "--table"])
    printed = capsys.readouterr().out
    assert all(f"| {name} |" in printed for name in wanted)
    assert "two fits" in printed


def test_null_and_grid_have_their_lines(tmp_path):
    out = tmp_path / "lines.jsonl"
    perturbations_table.main(["--out", str(out), *SMALL, "--null", "--data", "corrected", "--systems", "default"])
    perturbations_table.main(["--out", str(out), *SMALL, "--grid", "--data", "one batch", "--systems", "default"])
    null, grid = read_lines(out)
    assert null["null"] >= 2
    assert 0 <= null["gates_opened"] <= null["any_opened"] <= 1
    assert (null["part"], grid["part"]) == ("null", "grid")


def test_null_perturbations_are_controls_under_other_names(controlled):
    screen = with_null(controlled, 0)
    renamed = screen.train.obs[KEY].isin(screen.null).to_numpy()
    assert (controlled.obs[KEY][renamed] == CONTROL).all()
    n_control = int((controlled.obs[KEY] == CONTROL).sum())
    assert 0.1 < renamed.sum() / n_control <= 0.5
    sizes = screen.train.obs[KEY].value_counts()
    assert all(sizes[name] == int(name.rpartition("_")[2]) for name in screen.null)
    before, after = (some.obs[KEY][~renamed].astype(str) for some in (controlled, screen.train))
    assert (before == after).all()


def test_held_out_cells_are_of_other_perturbations():
    adata = simulated({"protocol": "reference"}, 0, SIZE)
    screen = screen_of(adata, hold_out=True)
    assert set(screen.held_out.obs[KEY]) == {"perturbation_8", "perturbation_9"}
    assert set(screen.train.obs[KEY]) == set(screen.names)
    assert screen.n_simulated == 10
    assert np.bincount(scored_cells(screen.held_out)).tolist() == [40, 40]


def test_what_opens_for_nothing():
    opened = np.zeros((3, 4), bool)
    opened[0, :2] = True
    found = null_scores(["null_0_of_50", "null_1_of_50", "null_2_of_100"], opened)
    assert (found["gates_opened"], found["any_opened"]) == (2 / 12, 1 / 3)
    assert (found["any_opened_of_50"], found["any_opened_of_100"]) == (0.5, 0.0)
