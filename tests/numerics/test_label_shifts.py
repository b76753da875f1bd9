import tracemalloc

import numpy as np
import pytest

from scanpy_scvi.numerics.label_shifts import estimate_shifts, link_design

DESIGN = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], float)
"""A control, two perturbations alone, both."""


def test_shifts_of_single_perturbations_are_means_of_their_cells():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=200)
    z = rng.normal(size=(200, 4))
    found = estimate_shifts(z, labels, DESIGN[:3])
    for k in (0, 1):
        of_k = z[labels == k + 1]
        np.testing.assert_allclose(found.shift[k], of_k.mean(0), rtol=1e-5)
        assert found.n_cells[k] == len(of_k)
    within = z - np.stack([z[labels == label].mean(0) for label in range(3)])[labels]
    sd = np.sqrt((within**2).sum(0) / (200 - 3))
    np.testing.assert_allclose(found.standard_error, sd / np.sqrt(found.n_cells)[:, None], rtol=1e-5)


def test_combinations_add_up():
    """Least squares, against the solution by cells."""
    rng = np.random.default_rng(1)
    labels = rng.integers(4, size=300)
    shift = rng.normal(size=(2, 3))
    z = DESIGN[labels] @ shift + 0.1 * rng.normal(size=(300, 3))
    found = estimate_shifts(z, labels, DESIGN)
    np.testing.assert_allclose(found.shift, np.linalg.lstsq(DESIGN[labels], z, rcond=None)[0], rtol=1e-4, atol=1e-6)
    assert np.abs(found.shift - shift).max() < 5 * found.standard_error.max() < 0.1


def test_standard_errors_are_those_of_repeated_draws():
    rng = np.random.default_rng(2)
    labels = rng.integers(4, size=80)
    draws = [estimate_shifts(rng.normal(size=(80, 2)), labels, DESIGN) for _ in range(500)]
    spread = np.std([d.shift for d in draws], axis=0)
    expected = np.mean([d.standard_error for d in draws], axis=0)
    np.testing.assert_allclose(spread, expected, rtol=0.15)


def test_perturbations_that_only_come_together_share_their_shift():
    labels = np.array([0, 1] * 50)
    design = np.array([[0, 0], [1, 1]], float)
    z = np.where(labels[:, None] == 1, 2.0, 0.0) + np.random.default_rng(3).normal(size=(100, 1)) * 1e-3
    found = estimate_shifts(z, labels, design)
    assert found.shift.ravel() == pytest.approx([1, 1], abs=1e-2)
    assert (found.standard_error > 0.1).all()  # which of them it is, nobody can tell


def test_batches_and_an_origin_are_taken_out():
    """Least squares, against the solution by cells with contrasts that sum to zero."""
    rng = np.random.default_rng(4)
    labels, batch = rng.integers(4, size=400), rng.integers(3, size=400)
    level = rng.normal(size=(3, 2))
    z = DESIGN[labels] @ rng.normal(size=(2, 2)) + level[batch] + 0.1 * rng.normal(size=(400, 2))
    found = estimate_shifts(z, labels, DESIGN, batch=batch, free_origin=True)
    coded = np.array([[1, 0], [0, 1], [-1, -1]])[batch]
    columns = np.hstack([DESIGN[labels], np.ones((400, 1)), coded])
    expected, *_ = np.linalg.lstsq(columns, z, rcond=None)
    np.testing.assert_allclose(found.shift, expected[:2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.origin, expected[2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.batch_shift, [*expected[3:], -expected[3:].sum(0)], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.origin + found.batch_shift, level, atol=0.05)


def test_a_known_variance_is_used():
    labels = np.array([0, 1] * 8)
    z = np.random.default_rng(5).normal(size=(16, 2))
    found = estimate_shifts(z, labels, DESIGN[:2, :1], variance=np.array([4.0, 9.0]))
    np.testing.assert_allclose(found.standard_error[0], np.sqrt([4 / 8, 9 / 8]), rtol=1e-5)


def test_a_perturbation_whose_cells_are_in_one_batch_is_compared_with_its_control():
    rng = np.random.default_rng(6)
    labels = np.repeat([0, 0, 1], 200)
    batch = np.repeat([0, 1, 1], 200)
    z = 5.0 * batch[:, None] + 2.0 * (labels == 1)[:, None] + rng.normal(size=(600, 1))
    found = estimate_shifts(z, labels, DESIGN[:2, :1], batch=batch, free_origin=True)
    assert found.shift.item() == pytest.approx(2, abs=0.3)


def test_labels_that_no_two_cells_share_have_errors_all_the_same():
    """Every cell has another combination of perturbations: nothing varies within labels."""
    rng = np.random.default_rng(4)
    design = (rng.random((400, 12)) < 0.4).astype(float)
    shift = rng.normal(size=(12, 3))
    z = design @ shift + rng.normal(size=(400, 3))
    found = estimate_shifts(z, np.arange(400), design)
    np.testing.assert_allclose(found.variance, 1, rtol=0.25)
    assert np.abs((found.shift - shift) / found.standard_error).max() < 4.5


def test_as_many_shifts_as_cells_are_no_evidence():
    z = np.random.default_rng(5).normal(size=(50, 3)) + 1
    found = estimate_shifts(z, np.arange(50), np.eye(50))
    np.testing.assert_allclose(found.variance, (z**2).mean(0))
    assert (np.abs(found.shift) < 4 * found.standard_error).all()


def test_a_dimension_without_spread_has_no_error_of_zero():
    found = estimate_shifts(np.zeros((40, 2)), np.arange(40) % 3, DESIGN[:3])
    assert (found.standard_error > 0).all()
    assert (found.shift == 0).all()


def test_memory_does_not_grow_with_labels_times_perturbations():
    """Twenty thousand combinations of 300 perturbations, which as a dense table would take 48 MB."""
    rng = np.random.default_rng(6)
    n_labels, n_perturbations = 20_000, 300
    label = np.repeat(np.arange(n_labels), 2)
    perturbation = rng.integers(n_perturbations, size=2 * n_labels)
    design = link_design(label, perturbation, n_labels, n_perturbations)
    labels, batch = np.repeat(np.arange(n_labels), 2), rng.integers(40, size=2 * n_labels)
    z = rng.normal(size=(2 * n_labels, 2))
    tracemalloc.start()
    try:
        estimate_shifts(z, labels, design, batch=batch, free_origin=False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < n_labels * n_perturbations * 8 / 2
