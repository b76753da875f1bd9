"""Targets, counted by hand and by scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import precision_recall_fscore_support

from scanpy_scvi.metrics import mcc, target_auprc, target_f1

TRUE = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 1]], bool)


def test_scores_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    true, probability, order = rng.random((30, 6)) < 0.2, rng.random((30, 6)), rng.permutation(6)
    ours = target_f1(true, probability[:, np.argsort(order)], order, threshold=0.7)
    theirs = precision_recall_fscore_support(true.ravel(), (probability > 0.7).ravel(), average="binary")[:3]
    assert tuple(ours) == pytest.approx(theirs)
    assert target_f1(true, probability > 0.7, np.arange(6)) == ours


def test_the_truth_under_its_own_order_is_perfect():
    assert target_f1(TRUE, TRUE[:, [1, 2, 0]], [2, 0, 1]) == (1, 1, 1)
    assert target_auprc(TRUE, TRUE[:, [1, 2, 0]], [2, 0, 1]) == 1


def test_latents_without_a_partner():
    """By hand: the third true latent was not found (2 misses), and a surplus one has 2 open gates (both false)."""
    gates = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 1]])
    scores = target_f1(TRUE, gates, [1, 0, -1])
    assert (scores.precision, scores.recall, scores.f1) == (0.5, 0.5, 0.5)
    # ranks: two true and two false at 1, the two missed last of all 12 pairs
    assert target_auprc(TRUE, gates, [1, 0, -1]) == pytest.approx(0.5 * 2 / 4 + 0.5 * 4 / 12)


def test_nothing_found_is_a_zero_and_no_warning():
    assert target_f1(TRUE, np.zeros((3, 3)), [0, 1, 2]) == (0, 0, 0)


def test_the_largest_shifts_of_each_row():
    shifts = np.array([[-3.0, 2, 1], [0.1, -0.2, 0.3], [0, 0, 5]])
    scores = target_f1(TRUE, shifts, [0, 1, 2], top_n=2)
    # chosen: (0, 0), (0, 1), (1, 1), (1, 2), (2, 2); exact zeros are no targets
    assert scores == pytest.approx((4 / 5, 1, 8 / 9))
    assert target_f1(TRUE, shifts, [0, 1, 2], top_n=9).precision == 4 / 7


def test_signed_alignment_loses_targets_that_were_found():
    """Every latent is found, half of them upside down: partners by signed correlation put their gates elsewhere."""
    rng = np.random.default_rng(1)
    targets = rng.random((40, 6)) < 0.2
    targets[:, 0] |= ~targets.any(1)
    z = rng.normal(size=(2000, 6)) + np.repeat(targets, 50, axis=0) * 4.0
    estimated = z * [1, -1, 1, -1, 1, -1] + 0.1 * rng.normal(size=z.shape)
    assert target_f1(targets, targets, mcc(z, estimated).assignment).f1 == 1
    signed = linear_sum_assignment(-np.corrcoef(z, estimated, rowvar=False)[:6, 6:])[1]
    assert target_f1(targets, targets, signed).f1 < 0.8


def test_area_by_hand_and_of_chance():
    """Ranked true, false, true, true among 9: precisions 1, 2/3, 3/4, and the last true pair at the end, 4/9."""
    score = np.array([[9, 2, 3], [4, 7, 6], [5, 8, 1]])
    assert target_auprc(TRUE, score, [0, 1, 2]) == pytest.approx((1 + 2 / 3 + 3 / 4 + 4 / 9) / 4)
    rng = np.random.default_rng(2)
    true = rng.random((500, 20)) < 0.15
    assert target_auprc(true, rng.normal(size=true.shape), np.arange(20)) == pytest.approx(0.15, abs=0.02)


@pytest.mark.parametrize(
    ("true", "estimated", "assignment", "options", "message"),
    [
        (TRUE, 5.0 * TRUE, [0, 1, 2], {}, "from 0 to 5, which are no probabilities"),
        (~TRUE & TRUE, TRUE, [0, 1, 2], {}, "`true` holds no target"),
        (2 * TRUE, TRUE, [0, 1, 2], {}, "True or False"),
        (TRUE, TRUE[:2], [0, 1, 2], {}, "3 perturbations, but 2"),
        (TRUE, TRUE, [0, 1], {}, "for each of the 3 true latents"),
        (TRUE, TRUE, [0, 1, 1], {}, "another one"),
        (TRUE, TRUE, [0, 1, 3], {}, "the 3 estimated ones"),
        (TRUE, TRUE, [0.0, 1.0, 2.0], {}, "`assignment` must name"),
        (TRUE, TRUE, [0, 1, 2], {"top_n": 0}, "`top_n` is 0"),
        (TRUE, TRUE, [0, 1, 2], {"top_n": 1.5}, "`top_n` is 1.5"),
    ],
)
def test_what_cannot_be_scored_is_refused(true, estimated, assignment, options, message):
    with pytest.raises(ValueError, match=message):
        target_f1(true, estimated, assignment, **options)
