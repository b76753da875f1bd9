import numpy as np

from scanpy_scvi.numerics.shift_rule import ShiftRule

SHIFT = np.array([[4.0, -1.1, 0.9, 0.0], [0.6, -0.45, 0.0, 0.55]])
ERROR = np.array([[0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.3]])


def test_a_shift_counts_beyond_all_three_limits():
    opened = ShiftRule(0.5, 0.25, 3.0).opens(SHIFT, ERROR)
    np.testing.assert_array_equal(opened, [[True, True, False, False], [True, False, False, False]])


def test_each_limit_can_be_left_out():
    np.testing.assert_array_equal(ShiftRule(0, 0, 0).opens(SHIFT, ERROR), SHIFT != 0)
    np.testing.assert_array_equal(ShiftRule(1, 0, 0).opens(SHIFT, ERROR), np.abs(SHIFT) > 1)
    np.testing.assert_array_equal(ShiftRule(0, 0, 5).opens(SHIFT, ERROR), np.abs(SHIFT) > 5 * ERROR)
    assert ShiftRule(0, 0.25, 0).opens(SHIFT, ERROR).sum() == 5


def test_nothing_is_open_without_perturbations_or_dimensions():
    for shape in ((0, 4), (3, 0)):
        assert ShiftRule(0.5, 0.3, 3).opens(np.zeros(shape), np.ones(shape)).shape == shape
