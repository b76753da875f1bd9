import numpy as np
import pytest

from scanpy_scvi.store.perturbations import forgotten_control, read_perturbations


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
