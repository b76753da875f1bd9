"""The doctor: every finding provoked, every error in the words of `tl.scvi`, nothing changed."""

from __future__ import annotations

import inspect
import json
import os
import pickle
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

import scanpy_scvi as sv
from scanpy_scvi.store.cost import CostOptions

DATA = os.environ.get("SCANPY_SCVI_DATA")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Timing a fit is for test_cost.py."""
    monkeypatch.setattr("scanpy_scvi.store.cost._time_fit", lambda *_: (1000, 1e-4))


@pytest.fixture
def adata() -> ad.AnnData:
    """Build 120 cells x 250 genes, all of them in some cells, genes by falling abundance."""
    adata = sv.datasets.simulate(n_cells=120, n_genes=300, n_labels=2, density=0.3)
    order = np.argsort(-np.asarray((adata.X > 0).sum(0)).ravel(), kind="stable")
    adata = adata[:, order[:250]].copy()
    adata.var_names = [f"gene_{g}" for g in range(250)]
    adata.obs["age"] = np.random.default_rng(0).normal(40, 5, adata.n_obs)
    adata.obs["sex"] = pd.Categorical(["f", "m", "m"] * 40)
    return adata


def lines(report: dict, topic: str, level: str) -> list[str]:
    return [f["message"] for f in report["findings"] if (f["topic"], f["level"]) == (topic, level)]


def line(report: dict, topic: str, level: str) -> str:
    """The one finding of a topic at a level."""
    (message,) = lines(report, topic, level)
    return message


def bytes_of(adata: ad.AnnData) -> bytes:
    """Everything an object holds, for comparison."""
    return pickle.dumps([adata.X, adata.obs, adata.var, dict(adata.obsm), dict(adata.layers), dict(adata.uns)])


def test_sound_data(adata, capsys):
    report = sv.pp.check(
        adata,
        batch_key="batch",
        labels_key="label",
        categorical_covariate_keys=["sex"],
        continuous_covariate_keys=["age"],
        size_factor_key="true_library",
    )
    assert report["level"] == "ok"
    topics = [f["topic"] for f in report["findings"]]
    order = ["counts", "cells", "libraries", "genes", "batches", "confounding", "covariates", "cost"]
    assert list(dict.fromkeys(topics)) == order
    shown = capsys.readouterr().err.splitlines()
    assert shown[0] == "check of 120 cells x 250 genes: nothing to object"
    assert len(shown) == 1 + len(report["findings"])
    for text, finding in zip(shown[1:], report["findings"], strict=True):
        assert text.split(maxsplit=2) == ["ok", finding["topic"], finding["message"]]


def test_the_facts(adata):
    report = sv.pp.check(adata, batch_key="batch", labels_key="label")
    X = adata.X.toarray()
    counts = {"layer": None, "are_counts": True, "largest": X.max(), "count_layers": [None]}
    assert report["counts"] == counts | {"zeros": pytest.approx((X == 0).mean())}
    assert report["cells"]["n"] == 120
    assert report["cells"]["library_median"] == np.median(X.sum(1))
    assert report["cells"]["library_min"] == X.sum(1).min()
    assert report["cells"]["n_extreme"] == report["cells"]["n_empty"] == 0
    assert report["genes"]["n_modelled"] == 250
    assert report["batches"] == {"key": "batch", "names": ["batch_0", "batch_1"], "n_cells": [60, 60]}
    assert [c["column"] for c in report["confounding"]] == ["label", "sex"]
    cost = report["cost"]
    assert cost["seconds"] > cost["max_epochs"] * cost["seconds_per_epoch"] > 0
    assert cost["memory_bytes"] >= cost["counts_bytes"] + cost["parameters_bytes"] + cost["normalized_bytes"]


KEYS = {
    "counts": ["layer", "are_counts", "largest", "zeros", "count_layers"],
    "cells": [
        *("n", "n_empty", "n_empty_modelled", "empty_modelled"),
        *("library_min", "library_median", "library_max", "n_extreme", "extreme"),
    ],
    "genes": ["n", "n_modelled", "n_empty", "n_empty_modelled", "empty_modelled"],
    "batches": ["key", "names", "n_cells"],
    "cost": [
        *("max_epochs", "seconds_per_epoch", "seconds", "memory_bytes", "counts_bytes"),
        *("parameters_bytes", "minibatch_bytes", "normalized_bytes", "free_bytes"),
    ],
}


@pytest.mark.parametrize("call", [{}, {"layer": "absent"}, {"mask_var": "absent"}, {"batch_key": "absent"}])
def test_the_keys_are_the_same_whatever_was_found_and_documented(adata, call):
    report = sv.pp.check(adata, **call)
    assert list(report) == ["level", "findings", *list(KEYS)[:4], "confounding", "cost"]
    assert {part: list(report[part]) for part in KEYS} == KEYS
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    missing = [k for keys in KEYS.values() for k in keys if f"``{k}``" not in sv.pp.check.__doc__]
    assert missing == []


def set_value(key: str, value: object, cell: int = 5):
    def change(adata: ad.AnnData) -> None:
        column = adata.obs[key].astype(object if isinstance(value, str) or value is None else float)
        column.iloc[cell] = value
        adata.obs[key] = column

    return change


def log_normalise(adata: ad.AnnData) -> None:
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.log1p(adata.X)


def set_count(value: float):
    def change(adata: ad.AnnData) -> None:
        adata.X = adata.X.astype(np.float32)
        adata.X.data[3] = value

    return change


def empty_cell(adata: ad.AnnData) -> None:
    adata.X = sparse.csr_matrix(sparse.diags((np.arange(adata.n_obs) != 4).astype(float)) @ adata.X)


def take_cells(adata: ad.AnnData) -> None:
    adata._inplace_subset_obs(np.arange(8))


def nothing(adata: ad.AnnData) -> None:
    """Leave it."""


def foreign_uns(adata: ad.AnnData) -> None:
    adata.uns["scvi"] = "notes of mine"


ERRORS = {
    "not counts": (log_normalise, {}, "counts"),
    "negative": (set_count(-1), {}, "counts"),
    "nan count": (set_count(np.nan), {}, "counts"),
    "no such layer": (nothing, {"layer": "count"}, "counts"),
    "empty cell": (empty_cell, {}, "cells"),
    "few cells": (take_cells, {}, "cells"),
    "no such mask": (nothing, {"mask_var": "hvg"}, "genes"),
    "mask of another length": (nothing, {"mask_var": np.ones(3, bool)}, "genes"),
    "more latent than genes": (nothing, {"mask_var": np.arange(250) < 7}, "genes"),
    "genes of one name": (lambda a: setattr(a, "var_names", ["A", "A", *a.var_names[2:]]), {}, "genes"),
    "no such batch": (nothing, {"batch_key": "Batch"}, "batches"),
    "nan batch": (set_value("batch", None), {"batch_key": "batch"}, "batches"),
    "no such label": (nothing, {"labels_key": "celltype"}, "confounding"),
    "nan category": (set_value("sex", None), {"categorical_covariate_keys": ["sex"]}, "covariates"),
    "constant category": (
        lambda a: a.obs.__setitem__("sex", "f"),
        {"categorical_covariate_keys": ["sex"]},
        "covariates",
    ),
    "nan covariate": (set_value("age", np.nan), {"continuous_covariate_keys": ["age"]}, "covariates"),
    "infinite covariate": (set_value("age", np.inf), {"continuous_covariate_keys": ["age"]}, "covariates"),
    "constant covariate": (
        lambda a: a.obs.__setitem__("age", 3.0),
        {"continuous_covariate_keys": ["age"]},
        "covariates",
    ),
    "text as number": (nothing, {"continuous_covariate_keys": ["sex"]}, "covariates"),
    "size factor of zero": (set_value("age", 0.0), {"size_factor_key": "age"}, "covariates"),
    "key is taken": (foreign_uns, {}, "results"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_reported_in_the_words_of_the_fit_and_not_raised(adata, case, capsys):
    change, call, topic = ERRORS[case]
    change(adata)
    report = sv.pp.check(adata, **call)
    with pytest.raises((ValueError, KeyError, TypeError)) as error:
        sv.tl.scvi(adata, max_epochs=1, progress=False, **call)
    assert report["level"] == "error"
    assert error.value.args[0] in lines(report, topic, "error")
    assert f"    ERROR    {topic:<11}  {error.value.args[0]}" in capsys.readouterr().err


def test_all_errors_at_once(adata):
    for name in ("not counts", "nan batch", "nan covariate", "key is taken"):
        ERRORS[name][0](adata)
    report = sv.pp.check(adata, batch_key="batch", continuous_covariate_keys=["age"])
    errors = [f["topic"] for f in report["findings"] if f["level"] == "error"]
    assert errors == ["counts", "batches", "covariates", "results"]


def test_where_the_counts_are(adata):
    log_normalise(adata)
    report = sv.pp.check(adata)
    assert "Pass `layer='counts'`" in line(report, "counts", "error")
    assert report["counts"]["are_counts"] is False
    assert report["counts"]["count_layers"] == ["counts"]
    assert sv.pp.check(adata, layer="counts")["counts"]["are_counts"] is True


def test_counts_made_even(adata):
    sc.pp.normalize_total(adata, target_sum=1e4)
    adata.X.data = np.rint(adata.X.data)
    assert "nearly the same total (10,0" in line(sv.pp.check(adata), "counts", "warning")


def test_zeros_and_ones(adata):
    adata.X.data[:] = 1
    assert "zeros and ones only" in line(sv.pp.check(adata), "counts", "warning")


def test_reads_rather_than_molecules(adata):
    adata.X.data *= np.random.default_rng(0).integers(2, 90, adata.X.nnz)
    assert "(0.0% of its non-zero counts)" in line(sv.pp.check(adata), "counts", "note")


def test_cells_that_are_empty_under_the_mask(adata):
    adata.var["highly_variable"] = np.arange(250) < 60
    matrix = adata.X.tolil()
    matrix[[2, 9], :60] = 0
    adata.X = matrix.tocsr()
    report = sv.pp.check(adata)
    assert "2 of 120 cells have no counts in the modelled genes" in line(report, "cells", "error")
    assert "mask_var=None" in line(report, "cells", "error")
    cells = report["cells"]
    assert (cells["n_empty"], cells["n_empty_modelled"], cells["empty_modelled"]) == (0, 2, ["cell_2", "cell_9"])
    assert cells["library_min"] > 0


def test_genes_that_are_in_no_cell(adata):
    matrix = adata.X.tolil()
    matrix[:, [3, 200]] = 0
    matrix[1:, 7] = 0
    matrix[0, 7] = 2
    adata.X = matrix.tocsr()
    adata.var["highly_variable"] = np.arange(250) < 199
    report = sv.pp.check(adata)
    assert "2 of 199 modelled genes have counts in fewer than 3 cells, 1 in none (first: 'gene_3')" in line(
        report, "genes", "note"
    )
    genes = report["genes"]
    assert (genes["n_empty"], genes["n_empty_modelled"], genes["empty_modelled"]) == (2, 1, ["gene_3"])


def test_extreme_cells_are_named(adata):
    matrix = adata.X.tolil()
    matrix[11] = matrix[11] * 200
    matrix[30] = 0
    matrix[30, 0] = 3
    adata.X = matrix.tocsr()
    report = sv.pp.check(adata, batch_key="batch")
    assert report["cells"]["n_extreme"] == 2
    assert report["cells"]["extreme"] == ["cell_11", "cell_30"]


def test_a_batch_that_was_not_named(adata):
    assert "`obs` has 'batch'" in line(sv.pp.check(adata), "batches", "note")


def test_other_columns_that_coincide_with_the_batch(adata):
    """Nobody asked for the condition, yet the batch is the condition."""
    adata.obs["condition"] = adata.obs["batch"].map({"batch_0": "control", "batch_1": "treated"})
    report = sv.pp.check(adata, batch_key="batch")
    message = line(report, "confounding", "note")
    assert message.startswith("'condition' in `obs` and the batch 'batch' coincide")
    assert {c["column"]: round(c["cramers_v"], 2) for c in report["confounding"]}["condition"] == 1


def test_missing_values_elsewhere_do_no_harm(adata):
    adata.obs["note"] = pd.Series([None, "x", "y"] * 40, index=adata.obs_names, dtype=object)
    report = sv.pp.check(adata, batch_key="batch")
    assert report["level"] == "ok"
    assert {"note", "label"} <= {c["column"] for c in report["confounding"]}


@pytest.mark.parametrize(
    ("column", "level", "words"),
    [
        (lambda a: np.where(np.arange(120) == 8, 1e6, a.obs["age"]), "warning", "11 standard deviations"),
        (lambda a: (a.obs["batch"] == "batch_1") * 2.0, "note", "is decided by the batch"),
    ],
)
def test_odd_continuous_covariates(adata, monkeypatch, column, level, words):
    monkeypatch.setattr("scanpy_scvi.store.covariate_findings.FAR", 10)  # 120 cells allow at most 10.9
    adata.obs["odd"] = np.asarray(column(adata))
    report = sv.pp.check(adata, batch_key="batch", continuous_covariate_keys=["odd"])
    assert words in line(report, "covariates", level)


def test_odd_categorical_covariates(adata):
    adata.obs["chip"] = adata.obs["batch"].astype(str) + "_chip"
    adata.obs["barcode"] = [f"b{i // 2}" for i in range(120)]
    report = sv.pp.check(adata, batch_key="batch", categorical_covariate_keys=["chip", "barcode"])
    assert "`obs['chip']` coincides with the batch" in line(report, "covariates", "note")
    assert "60 categories for 120 cells" in line(report, "covariates", "warning")


def test_odd_size_factors(adata):
    adata.obs["factor"] = adata.obs["true_library"]
    adata.obs.loc["cell_6", "factor"] *= 1e4
    report = sv.pp.check(adata, batch_key="batch", size_factor_key="factor")
    assert "1 of 120 cells has a size factor in `obs['factor']`" in line(report, "covariates", "warning")
    assert "'cell_6'" in line(report, "covariates", "warning")


def test_an_earlier_fit_is_noted(adata):
    sv.tl.scvi(adata, max_epochs=1, progress=False)
    assert "holds an earlier fit" in line(sv.pp.check(adata), "results", "note")
    assert lines(sv.pp.check(adata, key_added="other"), "results", "note") == []


def test_adata_stays_as_it_is(adata):
    log_normalise(adata)
    adata.obs["text"] = ["x", "y"] * 60
    before = bytes_of(adata.copy())
    sv.pp.check(adata, batch_key="batch", labels_key="label", layer="counts", categorical_covariate_keys=["text"])
    sv.pp.check(adata, size_factor_key="absent")
    assert bytes_of(adata.copy()) == before


KINDS = {
    "csr_array": sparse.csr_array,
    "csc": sparse.csc_matrix,
    "dense": lambda x: x.toarray(),
    "int64": lambda x: x.toarray().astype(np.int64),
    "float64": lambda x: x.astype(np.float64),
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_matrix_gives_the_same_report(adata, kind):
    expected = sv.pp.check(adata, batch_key="batch")
    adata.X = KINDS[kind](adata.X)
    report = sv.pp.check(adata, batch_key="batch")
    assert {k: v for k, v in report.items() if k not in ("findings", "cost")} == {
        k: v for k, v in expected.items() if k not in ("findings", "cost")
    }


def test_a_view_stays_a_view(adata):
    view = adata[adata.obs["batch"] == "batch_0", 10:]
    report = sv.pp.check(view)
    assert view.is_view
    assert (report["cells"]["n"], report["genes"]["n"]) == (60, 240)


def test_a_file_is_read_in_chunks(adata, tmp_path):
    adata.write_h5ad(tmp_path / "counts.h5ad")
    backed = ad.read_h5ad(tmp_path / "counts.h5ad", backed="r")
    try:
        report = sv.pp.check(backed, batch_key="batch", labels_key="label")
    finally:
        backed.file.close()
    assert report["counts"]["are_counts"] is True
    assert report["cells"] == sv.pp.check(adata, batch_key="batch")["cells"]


def test_silent_at_verbosity_zero(adata, capsys):
    with sc.settings.verbosity.override(0):
        report = sv.pp.check(adata)
    assert capsys.readouterr().err == ""
    assert report["findings"]


def test_takes_the_arguments_of_the_fit_with_their_defaults():
    ours, theirs = (inspect.signature(f).parameters for f in (sv.pp.check, sv.tl.scvi))
    assert {name: (p.kind, p.default) for name, p in ours.items()} == {
        name: (theirs[name].kind, theirs[name].default) for name in ours
    }
    defaults = {name: field.default for name, field in CostOptions.__dataclass_fields__.items()}
    assert defaults == {name: theirs[name].default for name in defaults}


def test_unknown_options_are_raised(adata):
    with pytest.raises(ValueError, match="`likelihood` is 'gauss', but one of"):
        sv.pp.check(adata, likelihood="gauss")
    with pytest.raises(TypeError, match="is the string 'age'"):
        sv.pp.check(adata, continuous_covariate_keys="age")


@pytest.mark.parametrize(("n_obs", "n_vars"), [(0, 5), (5, 0), (1, 1), (30, 1)])
def test_hardly_any_data(n_obs, n_vars):
    adata = ad.AnnData(np.ones((n_obs, n_vars), np.float32))
    report = sv.pp.check(adata)
    assert report["level"] == "error"
    assert report["cells"]["n"] == n_obs


def test_no_matrix_at_all():
    adata = ad.AnnData(obs=pd.DataFrame(index=list("abcdefghijkl")), var=pd.DataFrame(index=["g", "h"]))
    assert "`adata.X` is None" in line(sv.pp.check(adata), "counts", "error")


@pytest.mark.real_data
@pytest.mark.skipif(DATA is None, reason="SCANPY_SCVI_DATA names no folder")
def test_kang_the_batch_is_the_stimulus():
    adata = ad.read_h5ad(Path(DATA) / "kang_pbmc_ifnb.h5ad")
    adata.layers["lognorm"] = np.log1p(adata.X)
    report = sv.pp.check(adata, batch_key="batch", labels_key="cell_type", layer="lognorm")
    assert "adata.layers['lognorm']` has non-integer values" in line(report, "counts", "error")
    assert report["counts"]["count_layers"] == [None]
    report = sv.pp.check(adata, batch_key="batch", labels_key="cell_type")
    assert report["level"] == "warning"
    assert "all 9,015 genes are modelled" in line(report, "genes", "warning")
    assert "'condition'" in line(report, "confounding", "note")
    by_column = {c["column"]: c["cramers_v"] for c in report["confounding"]}
    assert by_column["condition"] > 0.99
    assert by_column["cell_type"] < 0.2
