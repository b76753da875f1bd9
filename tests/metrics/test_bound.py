"""The importance-weighted bound, where the evidence is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from scanpy_scvi.metrics import iwelbo


def _log_weights(x, mean, sd, n_samples, seed=0):
    """Draws from N(mean, sd²) for z ~ N(0, 1), x | z ~ N(z, 1), whose evidence is N(x; 0, 2)."""
    z = mean + sd * np.random.default_rng(seed).normal(size=(n_samples, len(x)))
    return norm.logpdf(x, z) + norm.logpdf(z) - norm.logpdf(z, mean, sd)


X = np.random.default_rng(1).normal(0, np.sqrt(2), 200)
EVIDENCE = norm.logpdf(X, 0, np.sqrt(2))


def test_with_the_exact_posterior_one_draw_is_the_evidence():
    np.testing.assert_allclose(iwelbo(_log_weights(X, X / 2, np.sqrt(0.5), 1)).cells, EVIDENCE)


def test_with_another_posterior_it_rises_to_the_evidence():
    """One draw has the evidence lower bound, which is short by KL(q, posterior) with the posterior N(x / 2, 1 / 2)."""
    x = np.tile(X, 50)
    means = [iwelbo(_log_weights(x, x / 2 + 0.5, 1, n)).mean for n in (1, 5, 200)]
    kl = (1 / 0.5 + 0.5**2 / 0.5 - 1 - np.log(1 / 0.5)) / 2
    assert means[0] == pytest.approx(EVIDENCE.mean() - kl, abs=0.05)
    assert means[0] + 0.1 < means[1] < means[2] - 0.02
    assert means[2] == pytest.approx(EVIDENCE.mean(), abs=0.01)


def test_constants_come_back_however_large():
    for c in (-1e5, 0.0, 1e5):
        found = iwelbo(np.full((7, 4), c))
        np.testing.assert_allclose(found.cells, c)
        assert found.mean == pytest.approx(c)
    weights = np.array([[-np.inf, 0.0], [np.log(4), -np.inf]])  # weights of 0 are part of the mean
    np.testing.assert_allclose(iwelbo(weights).cells, np.log([2, 0.5]))


def test_perturbations_count_alike_and_small_ones_not_at_all():
    groups = np.repeat(["b", "a", "small"], [3, 12, 2])
    values = np.r_[[1.0, 2, 3], np.full(12, 10.0), [100, 100]]
    found = iwelbo(values[None], groups, min_cells=2)
    assert found.groups.tolist() == ["a", "b", "small"]
    assert found.n_cells.tolist() == [12, 3, 2]
    np.testing.assert_allclose(found.group_means, [10, 2, 100])
    assert found.mean == pytest.approx(6)
    assert iwelbo(values[None], groups).mean == pytest.approx(10)  # more than 10 cells: a alone


@pytest.mark.parametrize(
    ("weights", "groups", "message"),
    [
        (np.zeros(3), None, "draws x cells"),
        (np.array([[np.nan, 0]]), None, "missing or infinite"),
        (np.array([[np.inf, 0]]), None, "missing or infinite"),
        (np.zeros((2, 3)), ["a", "b"], "each of the 3 cells"),
        (np.zeros((2, 3)), np.array(["a", None, "b"], object), "`groups` is missing for 1"),
        (np.zeros((2, 3)), ["a", "a", "b"], "No group has more than 10 cells; the largest has 2"),
    ],
)
def test_what_has_no_bound_is_refused(weights, groups, message):
    with pytest.raises(ValueError, match=message):
        iwelbo(weights, groups)
