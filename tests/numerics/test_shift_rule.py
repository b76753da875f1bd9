import numpy as np
import pytest

from scanpy_scvi.numerics.shift_rule import ShiftRule, gate_probability

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


def test_a_gate_costs_what_the_smallest_shift_that_counts_brings():
    price = ShiftRule(0.5, 0.3, 3.0).price(np.array([10.0, 36.0, 100.0]))
    np.testing.assert_allclose(price, [4.5, 4.5, 12.5])  # 36 cells tell half a standard deviation by three errors


@pytest.mark.parametrize("linear", [False, True])
def test_the_probability_of_a_gate_is_the_best_one(linear):
    grid = np.linspace(0, 1, 100_001)[:-1]
    evidence, price = (x.ravel() for x in np.meshgrid([0.0, 0.3, 2.0, 7.0, 50.0], [0.1, 1.0, 6.9]))
    cost = -grid if linear else np.log1p(-grid)
    best = grid[np.argmax(evidence[:, None] * grid + price[:, None] * cost, axis=1)]
    np.testing.assert_allclose(gate_probability(evidence, price, linear=linear), best, atol=2e-5)


def test_gates_that_cost_nothing_are_open_where_they_bring_anything():
    for linear in (False, True):
        assert gate_probability(np.array([0.0, 1e-3]), np.zeros(2), linear=linear)[1] == 1
    assert np.isfinite(gate_probability(np.zeros(1), np.zeros(1))).all()
