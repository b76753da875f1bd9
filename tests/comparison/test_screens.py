"""The scripts on screens, at a size that says nothing about the systems."""

import anndata as ad
import numpy as np
import pandas as pd
import papalexi_screen
import perturbation_protocol
import pytest
import torch
from result_lines import read_lines
from screen_data import combined, norman, replogle, stand_in
from shifted_fits import Columns, Decoded, evidence, fit, gain, log_counts, shifts

import scanpy_scvi as sv
from scanpy_scvi.posterior.bound import held_out_bound
from scanpy_scvi.store.load import load

COLUMNS = Columns("perturbation", "control", "batch")
SHORT = {"max_epochs": 60, "n_hidden": 32, "n_latent": 5}


@pytest.fixture(scope="module")
def screen():
    return sv.datasets.simulate_perturbations(
        n_perturbations=8, n_combinations=4, n_latent=4, n_genes=40, cells_per_perturbation=40
    )


@pytest.fixture(scope="module")
def fitted(screen):
    adata = screen.copy()
    fit(adata, COLUMNS, "ivae", 0, SHORT)
    return adata


def test_weights_under_the_own_shift_are_those_of_the_model(fitted):
    labels = fitted.obs["perturbation"].astype(str)
    table = shifts(fitted)
    of_label = {label: [] if label == "control" else label.split("+") for label in labels.unique()}
    own = np.stack([table.loc[of_label[label]].to_numpy(np.float32).sum(0) for label in labels])
    weights = evidence(fitted, fitted, COLUMNS, n_samples=20, seed=1)
    mine = sv.metrics.iwelbo(weights.under(own)).cells
    model = load(fitted, "svae")
    bound = held_out_bound(
        model.model, model.read(fitted), n_samples=20, random_state=1, device=torch.device("cpu")
    ).log_likelihood
    np.testing.assert_allclose(mine, bound, atol=1e-2)  # the same draws
    some = labels.to_numpy() == "perturbation_0"
    shift = table.loc["perturbation_0"].to_numpy(np.float32)
    expected = (
        sv.metrics.iwelbo(weights.of(some).under(shift)).mean - sv.metrics.iwelbo(weights.of(some).log_weights).mean
    )
    assert gain(weights.of(some), shift) == pytest.approx(expected)
    assert gain(weights, np.zeros_like(shift)) == pytest.approx(0, abs=1e-9)


def test_expression_is_that_of_control_cells(fitted):
    decoded = Decoded(fitted, COLUMNS, 0)
    zero = np.zeros(SHORT["n_latent"], np.float32)
    assert decoded.mean_expression(zero).sum() == pytest.approx(1e4, rel=1e-4)
    np.testing.assert_array_equal(decoded.mean_log_counts(zero), decoded.mean_log_counts(zero))
    control = fitted[fitted.obs["perturbation"] == "control"]
    observed = np.asarray(log_counts(control.X).mean(0)).ravel()
    assert np.corrcoef(decoded.mean_log_counts(zero), observed)[0, 1] > 0.8


def test_a_run_on_known_answers_is_resumed(tmp_path, capsys):
    out = tmp_path / "lines.jsonl"
    options = ["--out", str(out), "--quick", "--tasks", "whole", "transfer", "--methods", "svae+"]
    papalexi_screen.main([*options, "--seeds", "0"])
    papalexi_screen.main([*options, "--seeds", "0", "1"])
    lines = read_lines(out)
    assert [line["seed"] for line in lines] == [0, 0, 0, 0, 1, 1, 1, 1]
    whole = [line for line in lines if line["task"] == "whole"]
    assert all(line["finite"] and line["of"] == 16 for line in whole)
    assert [len(line["mccs"]) for line in whole] == [0, 1]
    assert sorted(line["left_out"] for line in lines if line["seed"] == 1 and line not in whole) == [
        "JAK2",
        "SMAD4",
        "STAT1",
    ]
    capsys.readouterr()
    papalexi_screen.main([*options, "--table"])
    assert "stand-in, transfer, STAT1; seeds [0, 1]" in capsys.readouterr().out


def test_the_protocol_has_every_group(tmp_path, capsys):
    out = tmp_path / "lines.jsonl"
    methods = ["svae+", "gene space", "average effect"]
    options = ["--out", str(out), "--quick", "--samples", "5", "--seeds", "0", "--methods", *methods]
    perturbation_protocol.main(options)
    lines = read_lines(out)
    assert [line["method"] for line in lines] == 3 * methods
    pairs = [line for line in lines if line["kind"] == "no pair in the fit"]
    assert [line["composed"]["n"] for line in pairs] == [3, 3, 3]
    assert next(line for line in lines if line["kind"] == "pathways")["composed"]["n"] == 0
    means, average = pairs[1:]
    assert means["seen"]["rank"] < 0.1 < average["seen"]["rank"]
    perturbation_protocol.main([*options, "--table"])
    assert "stand-in, pathways: 1 folds, 1 seeds" in capsys.readouterr().out


def test_cells_that_score_are_seen_by_nothing_else():
    screen = stand_in()
    for fold in screen.folds:
        cells = perturbation_protocol.split(screen, fold)
        names = [set(part.obs_names) for part in (cells.train, cells.given, cells.test)]
        assert not names[0] & names[1] | names[0] & names[2] | names[1] & names[2]
        assert not fold.held_out & set(cells.train.obs["perturbation"])
        assert set(cells.test.obs["perturbation"]) & fold.held_out == fold.scored
        assert set(cells.null) <= set(cells.train.obs["perturbation"])


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("KLF1+BAK1", "BAK1+KLF1"),
        ("CBL,CNN1", "CBL+CNN1"),
        ("FEV+ctrl", "FEV"),
        ("", "control"),
        ("control", "control"),
    ],
)
def test_pairs_have_one_name(label, expected):
    assert combined(label) == expected


def test_files_as_pertpy_has_them(screen, tmp_path):
    labels = screen.obs["perturbation"].astype(str).to_numpy()
    lanes = np.resize([1, 2], len(labels))
    var = pd.DataFrame({"highly_variable": np.arange(40) < 30}, index=screen.var_names)
    obs = pd.DataFrame({"perturbation_name": labels, "gemgroup": lanes}, index=screen.obs_names)
    ad.AnnData(screen.X.log1p(), obs=obs, var=var, layers={"counts": screen.X}).write_h5ad(tmp_path / "norman.h5ad")
    found = norman(tmp_path / "norman.h5ad", n_splits=2, in_batches=True)
    assert found.columns == COLUMNS
    assert found.adata.shape[1] == 30
    assert float(found.adata.X.max()) == float(screen.X[:, :30].max())
    assert {len(fold.scored) for fold in found.folds} == {1}
    assert len(found.folds) == 4
    alone = np.array(["+" not in label for label in labels])
    guides = np.where(labels == "control", "non-targeting", labels)
    obs = pd.DataFrame({"gene": guides, "perturbation": "nan", "batch": lanes}, index=screen.obs_names)[alone]
    ad.AnnData(screen.X[alone], obs=obs, var=var[[]]).write_h5ad(tmp_path / "replogle.h5ad")
    names = [f"perturbation_{k}" for k in range(6)]
    table = pd.DataFrame({"perturbation": names, "cluster": ["40S", "40S", "exosome", "", "", ""]})
    table.to_csv(tmp_path / "clusters.csv", index=False)
    (tmp_path / "genes.txt").write_text("\n".join(screen.var_names[:20]))
    found = replogle(
        tmp_path / "replogle.h5ad", tmp_path / "clusters.csv", genes=tmp_path / "genes.txt", in_batches=False
    )
    assert found.columns.batch is None
    assert set(found.adata.obs["perturbation"]) <= {*names, "control"}
    assert found.adata.shape[1] == 20
    held_out = {fold.name: set(fold.held_out) for fold in found.folds}
    assert held_out["40S"] <= {"perturbation_0", "perturbation_1"}
