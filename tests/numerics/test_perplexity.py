"""Similarities of t-SNE against scikit-learn's, and the perplexity that is asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import squareform
from sklearn.manifold._t_sne import _joint_probabilities

from scanpy_scvi.numerics.perplexity import conditional_probabilities, joint_probabilities


def squared_distances(y):
    return ((y[:, None] - y) ** 2).sum(-1)


def entropy(p):
    return -(p * np.log(np.where(p > 0, p, 1))).sum(1)


@pytest.mark.parametrize("perplexity", [2.0, 10.0, 30.0])
def test_joint_probabilities_are_those_of_scikit_learn(perplexity):
    squared = squared_distances(np.random.default_rng(0).normal(size=(100, 5)))
    theirs = squareform(_joint_probabilities(squared.astype(np.float32), perplexity, 0))
    ours = joint_probabilities(squared, perplexity)
    np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=1e-9)  # theirs stops at an entropy that is off by 1e-5
    assert ours.sum() == pytest.approx(1, abs=1e-14)
    np.testing.assert_array_equal(ours, ours.T)
    assert not ours.diagonal().any()


@settings(max_examples=50)
@given(
    n=st.integers(4, 60),
    share=st.floats(0.02, 0.98),
    log_scale=st.floats(-20, 20),
    spread=st.floats(0, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_cell_has_the_perplexity(n, share, log_scale, spread, seed):
    """At any scale, and with cells whose neighbours lie near or far."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(n, 3)) * np.exp(log_scale + spread * rng.normal(size=(n, 1)))
    perplexity = 1 + share * (n - 2)
    p = conditional_probabilities(squared_distances(y), perplexity)
    np.testing.assert_allclose(np.exp(entropy(p)), perplexity, rtol=1e-9)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-12)
    assert not p.diagonal().any()


def test_nearer_cells_are_likelier():
    squared = squared_distances(np.random.default_rng(1).normal(size=(20, 2)))
    for i, row in enumerate(conditional_probabilities(squared, 5.0)):
        order = np.argsort(np.delete(squared[i], i))
        assert (np.diff(np.delete(row, i)[order]) <= 0).all()


def test_cells_in_one_place_are_alike():
    """No beta tells them apart: the entropy stays above that of fewer neighbours."""
    place = np.r_[np.zeros(6), 1.0, 2.0, 3.0, 100.0]
    p = conditional_probabilities(np.subtract.outer(place, place) ** 2, 3.0)
    np.testing.assert_allclose(p[0], [0, *[0.2] * 5, *[0] * 4], atol=1e-12)
    np.testing.assert_allclose(conditional_probabilities(np.zeros((5, 5)), 2.0), (1 - np.eye(5)) / 4)


def test_the_diagonal_is_not_looked_at():
    squared = squared_distances(np.random.default_rng(2).normal(size=(12, 2)))
    other = squared.copy()
    np.fill_diagonal(other, np.nan)
    np.testing.assert_array_equal(joint_probabilities(other, 4.0), joint_probabilities(squared, 4.0))
