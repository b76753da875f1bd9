import tracemalloc

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scanpy_scvi.store.perturbations import forgotten_control, names_of_table, read_perturbations


def of_labels(labels, control):
    """Names of the perturbations of each label."""
    found = read_perturbations(labels, control)
    named = {label: [found.names[k] for k in found.perturbation[found.label == i]] for i, label in enumerate(labels)}
    assert [labels[i] for i in found.control] == [label for label, some in named.items() if not some]
    return named


def test_combinations_are_taken_apart():
    labels = ["A", "A+B", "B+ctrl", "C || A", "ctrl", "ctrl+C", "A+A"]
    assert of_labels(labels, "ctrl") == {
        "A": ["A"],
        "A+B": ["A", "B"],
        "B+ctrl": ["B"],
        "C || A": ["C", "A"],
        "ctrl": [],
        "ctrl+C": ["C"],
        "A+A": ["A"],
    }


def test_names_are_sorted_whatever_the_order_of_labels():
    found = read_perturbations(["B", "A+C", "A"], None)
    assert found.names == ("A", "B", "C")
    np.testing.assert_array_equal(found.label, [0, 1, 1, 2])
    np.testing.assert_array_equal(found.perturbation, [1, 0, 2, 0])
    assert not len(found.control)


def test_a_separator_at_an_end_is_part_of_a_name():
    assert of_labels(["Ca2+", "A"], None) == {"Ca2+": ["Ca2+"], "A": ["A"]}


def test_several_controls_and_a_control_that_looks_like_a_combination():
    assert of_labels(["neg+1", "neg+2", "A"], ["neg+1", "neg+2"]) == {"neg+1": [], "neg+2": [], "A": ["A"]}


@pytest.mark.parametrize(
    ("control", "words"),
    [("NTC", "`control` is 'NTC', but the labels are 'A', 'ctrl'"), (["A", "ctrl"], "All cells are")],
)
def test_what_makes_no_sense(control, words):
    with pytest.raises(ValueError, match=words):
        read_perturbations(["A", "ctrl"], control)


def test_a_forgotten_control_is_seen():
    assert forgotten_control(["A", "NT", "B"]) == "NT"
    assert forgotten_control(["A", "B"]) is None


def test_a_name_that_ends_in_a_separator_may_be_in_a_combination():
    assert of_labels(["Ca2+ || B", "B", "A+C || B"], None) == {
        "Ca2+ || B": ["Ca2+", "B"],
        "B": ["B"],
        "A+C || B": ["A", "C", "B"],
    }


def with_table(values, names):
    adata = ad.AnnData(np.ones((len(values), 1), np.float32))
    adata.obsm["guides"] = pd.DataFrame(values, index=adata.obs_names, columns=names)
    return adata


def test_names_from_a_table():
    values = np.array([[0, 0, 0], [2, 0, 0], [0, 1, 3], [0, 0, 1], [0, 1, 3]])
    found = names_of_table(with_table(values, ["A", "B", "Ca2 plus"]), "guides", "none")
    assert list(found) == ["none", "A", "B+Ca2 plus", "Ca2 plus", "B+Ca2 plus"]
    sparse = with_table(values, ["A", "B", "C"])
    sparse.obsm["guides"] = sparse.obsm["guides"].astype(pd.SparseDtype(float, 0))
    assert list(names_of_table(sparse, "guides", "none")) == ["none", "A", "B+C", "C", "B+C"]


def test_a_column_that_a_combination_would_hide_is_refused():
    """`"Ca2+"` and `"B"` together would be the label `"Ca2++B"`, which is neither."""
    alone = with_table(np.eye(2), ["Ca2+", "B"])
    assert list(names_of_table(alone, "guides", "none")) == ["Ca2+", "B"]
    with pytest.raises(ValueError, match=r"'Ca2\+'.*Rename"):
        names_of_table(with_table(np.ones((2, 2)), ["Ca2+", "B"]), "guides", "none")


def test_a_wide_table_is_read_a_column_at_a_time():
    adata = with_table(np.zeros((4000, 500), np.int8), [f"g{i}" for i in range(500)])
    adata.obsm["guides"].iloc[::3, 7] = 1
    tracemalloc.start()
    try:
        found = names_of_table(adata, "guides", "none")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4000 * 500
    assert (found == "g7").sum() == 1334
