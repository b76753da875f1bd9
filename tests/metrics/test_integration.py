"""Scores of embeddings whose answers can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from scanpy_scvi.metrics import batch_mixing, ideal_batch_mixing, label_score


def test_label_score_counts_votes_of_others():
    """Three points on a line: the one of the minority is outvoted, and its own vote does not count."""
    x = np.array([0.0, 1.0, 1.1, 2.0])[:, None]
    assert label_score(x, np.array(["a", "b", "a", "a"]), n_neighbors=3) == 0.75


def test_label_score_of_noise_is_that_of_chance():
    rng = np.random.default_rng(0)
    score = label_score(rng.normal(size=(2000, 5)), rng.choice(["a", "b"], 2000))
    assert score == pytest.approx(0.5, abs=0.05)


def test_batch_mixing_against_its_ideal():
    """Random batches within labels reach the ideal; separated batches do not."""
    rng = np.random.default_rng(1)
    labels = np.repeat(["a", "b", "c"], 600)
    batch = np.array(
        [rng.choice(["x", "y"], p=p) for p in np.repeat([[0.5, 0.5], [0.9, 0.1], [1.0, 0.0]], 600, axis=0)]
    )
    centre = 50 * np.unique(labels, return_inverse=True)[1]
    x = rng.normal(size=(1800, 3)) + centre[:, None]
    ideal = ideal_batch_mixing(batch, labels)
    assert batch_mixing(x, batch) == pytest.approx(ideal, abs=0.01)
    assert batch_mixing(x + 1000 * (batch == "x")[:, None], batch) == 1


def test_ideal_by_hand():
    """Batch sizes 3 and 1 in one label: (3 * 2/3 + 1 * 0/3) / 4."""
    assert ideal_batch_mixing(np.array(["x", "x", "x", "y"])) == pytest.approx(0.5)


def test_fewer_cells_than_neighbours():
    assert label_score(np.arange(4.0)[:, None], np.array(["a"] * 4)) == 1
