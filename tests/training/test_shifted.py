import numpy as np
import pytest

from scanpy_scvi.numerics.shift_rule import ShiftRule
from scanpy_scvi.numerics.sparse_rotation import sparse_rotation
from scanpy_scvi.training.shifted import ShiftPlan, can_rotate, single_groups


def plan(links, n_perturbations):
    label, perturbation = np.array(links, np.int64).reshape(-1, 2).T
    return ShiftPlan(label, perturbation, n_perturbations, True, True, 0.5, ShiftRule(0.5, 0.3, 2.0))


def test_groups_are_of_cells_with_one_perturbation():
    """Labels: control, A, A+B, B under another name, C of no cell."""
    made = plan([(1, 0), (2, 0), (2, 1), (3, 1), (4, 2)], 3)
    np.testing.assert_array_equal(made.design(5).toarray(), [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]])
    groups, control = single_groups(made, np.array([0, 1, 2, 3, 3, 0]), 5)
    assert groups.tolist() == [2, 0, -1, 1, 1, 2]
    assert control == 2
    groups, control = single_groups(made, np.array([2, 3, 2, 1]), 5)
    assert groups.tolist() == [-1, 1, -1, 0]
    assert control is None


@pytest.mark.parametrize(
    ("sizes", "control"),
    [([5, 5], None), ([5, 5, 5], 2), ([5, 5], 1), ([5, 1, 9], 2), ([1, 1, 9], 2), ([2, 2], None), ([1] * 9, None)],
)
def test_what_is_too_little_for_a_rotation_is_known_before(sizes, control):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    z = np.random.default_rng(0).normal(size=(len(groups), 3))
    try:
        sparse_rotation(z, groups, control=control)
    except ValueError:
        assert not can_rotate(groups, control, 3)
    else:
        assert can_rotate(groups, control, 3)
    assert not can_rotate(np.full(5, -1), None, 3)
