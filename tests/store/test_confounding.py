"""Cramér's V against SciPy and against what it must be in plain cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats.contingency import association as scipy_association

from scanpy_scvi.store.confounding import association


def codes(table):
    rows, columns = np.indices(np.shape(table))
    return np.repeat(rows.ravel(), np.ravel(table)), np.repeat(columns.ravel(), np.ravel(table))


@pytest.mark.parametrize("table", [[[90, 10], [20, 80]], [[3000, 1000, 500], [100, 2000, 900], [50, 60, 7000]]])
def test_agrees_with_scipy_but_for_the_correction_of_chance(table):
    plain = scipy_association(np.array(table), method="cramer")
    assert association(*codes(table)).cramers_v == pytest.approx(plain, abs=0.01)


def test_independent_groupings_score_zero_where_the_plain_measure_does_not():
    """120 cells in 6 batches and 8 labels at random: without the correction V is about 0.2."""
    rng = np.random.default_rng(0)
    draws = [(rng.integers(0, 6, 120), rng.integers(0, 8, 120)) for _ in range(50)]
    ours = [association(b, k).cramers_v for b, k in draws]
    plain = [scipy_association(np.histogram2d(b, k, (6, 8))[0].astype(int)) for b, k in draws]
    assert np.mean(plain) > 0.2
    assert np.mean(ours) < 0.06


@pytest.mark.parametrize("table", [[[50, 0], [0, 50]], [[20, 0], [30, 0], [0, 40], [0, 10]], [[5, 5, 0], [0, 0, 90]]])
def test_one_deciding_the_other_scores_one(table):
    assert association(*codes(table)).cramers_v == pytest.approx(1, abs=0.02)
    assert association(*codes(np.transpose(table))).cramers_v == pytest.approx(1, abs=0.02)


def test_confined_labels_leave_out_what_chance_explains():
    """Three cells of label 2 in one of two equal batches happen one time in four; forty cells do not."""
    by_chance = association(*codes([[50, 50, 3], [50, 50, 0]]))
    assert by_chance.confined.tolist() == []
    found = association(*codes([[50, 50, 40], [50, 50, 0]]))
    assert found.confined.tolist() == [2]
    assert found.batch_of[2] == 0


def test_a_single_group_says_nothing():
    assert association(np.zeros(9, int), np.arange(9) % 3).cramers_v == 0
    assert association(np.arange(9) % 3, np.zeros(9, int)).confined.tolist() == []
