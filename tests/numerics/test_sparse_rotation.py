from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ortho_group
from shifted_latents import matched, shifted_latents

from scanpy_scvi.numerics.ica_rotation import NORMAL_LOG_COSH, ica_rotation
from scanpy_scvi.numerics.orthogonal_search import _criterion, _smooth_median, polar, smooth_l1, sparsest_rotation
from scanpy_scvi.numerics.perturbation_shifts import group_moments, spatial_median, whitening
from scanpy_scvi.numerics.sparse_rotation import sparse_rotation


def within_covariance(z: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Pooled covariance within groups, the plain way."""
    residuals = np.vstack([z[groups == g] - z[groups == g].mean(0) for g in np.unique(groups)])
    return residuals.T @ residuals / (len(z) - len(np.unique(groups)))


SETTINGS = {
    "with a control": {"n_control": 600},
    "without": {},
    "all up, without a control": {"one_sided": True},
    "small shifts": {"sizes": (1.0, 2.0), "n_control": 600},
    "unequal perturbations": {"sizes": (1.0, 5.0), "spread": 1.0},
    "thirty dimensions": {"n_latent": 30, "n_perturbations": 100, "n_control": 600},
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("seed", [0, 1])
def test_true_dimensions_shifts_and_targets_come_back(setting, seed):
    data = shifted_latents(seed, **SETTINGS[setting])
    control = len(data.shifts) if SETTINGS[setting].get("n_control") else None
    found = sparse_rotation(data.seen, data.groups, control=control)
    score, columns, signs = matched(data.z, found.rotate(data.seen))
    assert score > 0.97
    shifts = found.shifts[: len(data.shifts), columns] * signs
    errors = found.standard_errors[: len(data.shifts), None]
    assert np.median(np.abs(shifts - data.shifts) / errors) < 1.2  # |N(0, 1)| has the median 0.67
    called, true = np.abs(shifts) > np.maximum(0.5, 3 * errors), data.shifts != 0
    assert 2 * (called & true).sum() / (called.sum() + true.sum()) > 0.9


def test_standard_errors_are_those_of_repeated_draws():
    """Shifts along the truth scatter as said: 1 / n_k + 1 / n_0."""
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1, 2], [40, 10, 20])
    z = rng.normal(size=(2000, 70, 2))
    drawn = np.array([[one[groups == g].mean(0) - one[groups == 2].mean(0) for g in (0, 1)] for one in z])
    found = sparse_rotation(z[0], groups, control=2, n_starts=2)
    np.testing.assert_allclose(drawn.std((0, 2))[:2], found.standard_errors[:2], rtol=0.05)


def test_rotated_cells_are_white_and_the_map_is_what_it_says():
    data = shifted_latents(n_control=300)
    found = sparse_rotation(data.seen, data.groups, control=60)
    within = within_covariance(data.seen, data.groups)
    np.testing.assert_allclose(found.matrix.T @ within @ found.matrix, np.eye(15), atol=1e-10)
    rotated = (data.seen - found.center) @ found.matrix
    np.testing.assert_allclose(rotated @ found.inverse + found.center, data.seen, atol=1e-9)
    np.testing.assert_allclose(found.rotate(data.seen), rotated, atol=1e-5)
    means = [rotated[data.groups == g].mean(0) for g in range(61)]
    np.testing.assert_allclose(found.shifts, means, atol=1e-10)
    assert not found.shifts[60].any()
    np.testing.assert_array_equal(found.n_cells, np.bincount(data.groups))


def test_columns_are_sorted_by_what_moves_them_and_the_longer_tail_is_up():
    data = shifted_latents(n_control=300, spread=0.5)
    found = sparse_rotation(data.seen, data.groups, control=60)
    entries = (found.shifts / found.standard_errors[:, None])[:60]
    assert (np.diff(np.abs(entries).sum(0)) <= 0).all()
    assert ((entries**3).sum(0) > 0).all()


def test_criterion_is_no_worse_than_unrotated_random_or_true():
    data = shifted_latents(3, n_control=300, sizes=(1.0, 3.0))
    found = sparse_rotation(data.seen, data.groups, control=60)
    entries = (found.shifts / found.standard_errors[:, None])[:60]
    assert found.criterion == pytest.approx(smooth_l1(entries), rel=1e-9)
    turns = [found.inverse @ whitening(within_covariance(data.seen, data.groups)).matrix]
    turns += [ortho_group.rvs(15, random_state=seed) for seed in range(20)]
    turns += [polar(np.linalg.lstsq(found.rotate(data.seen), data.z, rcond=None)[0])]
    assert all(found.criterion <= smooth_l1(entries @ turn) * (1 + 1e-9) for turn in turns)


@pytest.mark.parametrize("n_control", [0, 300])
def test_a_second_rotation_changes_nothing(n_control):
    data = shifted_latents(4, n_control=n_control, sizes=(1.0, 3.0))
    control = 60 if n_control else None
    once = sparse_rotation(data.seen, data.groups, control=control)
    again = sparse_rotation(once.rotate(data.seen), data.groups, control=control)
    np.testing.assert_allclose(again.matrix, np.eye(15), atol=1e-4)
    np.testing.assert_allclose(again.center, 0, atol=1e-4)


def test_an_invertible_map_beforehand_changes_nothing():
    data = shifted_latents(5, n_control=300)
    rng = np.random.default_rng(0)
    mapped = data.seen @ rng.normal(size=(15, 15)) + 3
    one, other = (sparse_rotation(z, data.groups, control=60) for z in (data.seen, mapped))
    np.testing.assert_allclose(one.shifts, other.shifts, atol=1e-4)


def test_same_seed_same_bits_and_most_starts_agree():
    data = shifted_latents()
    one, other = (sparse_rotation(data.seen, data.groups, random_state=7) for _ in range(2))
    np.testing.assert_array_equal(one.matrix, other.matrix)
    assert 5 <= one.n_agree <= 10


def test_fewer_perturbations_than_dimensions():
    """What they span is rotated; no perturbation moves the rest; and a second rotation still changes nothing."""
    data = shifted_latents(n_perturbations=4, n_latent=9, n_control=200)
    found = sparse_rotation(data.seen, data.groups, control=4)
    assert found.n_moved == 4
    np.testing.assert_allclose(found.shifts[:, 4:], 0, atol=1e-9)
    within = within_covariance(data.seen, data.groups)
    np.testing.assert_allclose(found.matrix.T @ within @ found.matrix, np.eye(9), atol=1e-10)
    again = sparse_rotation(found.rotate(data.seen), data.groups, control=4)
    np.testing.assert_allclose(again.matrix, np.eye(9), atol=1e-4)


@pytest.mark.parametrize("rotation", [sparse_rotation, ica_rotation])
def test_collapsed_dimensions_come_last_and_stay_small(rotation):
    data = shifted_latents(n_latent=10, n_perturbations=50, n_control=300)
    z = np.insert(data.seen, [1, 4], [0.0, 5.0], axis=1)  # two dimensions that are constant
    found = rotation(z, data.groups, control=50, n_starts=4)
    assert (found.n_collapsed, found.n_moved) == (2, 10)
    assert np.abs(found.shifts[:, 10:]).max() < 1e-6
    assert matched(data.z, found.rotate(z)[:, :10])[0] > 0.9
    np.testing.assert_allclose(found.rotate(z) @ found.inverse + found.center, z, atol=1e-4)
    assert np.linalg.cond(found.matrix) < 1e4


def test_cells_without_a_perturbation_and_single_cells_do_not_shape_the_map():
    data = shifted_latents(n_control=300)
    plain = sparse_rotation(data.seen, data.groups, control=60)
    far = np.full((2, 15), 100.0)
    added = np.vstack([data.seen, far])
    found = sparse_rotation(added, np.r_[data.groups, -1, 61], control=60)
    np.testing.assert_allclose(found.matrix, plain.matrix, rtol=1e-6, atol=1e-8)
    assert found.n_cells[61] == 1
    np.testing.assert_allclose(found.shifts[61], (far[0] - plain.center) @ plain.matrix, rtol=1e-5)


@pytest.mark.parametrize("signs", ["both", "one"])
def test_ica_finds_dimensions_that_strong_shifts_make_non_normal(signs):
    data = shifted_latents(n_control=300, one_sided=signs == "one")
    found = ica_rotation(data.seen, data.groups, control=60)
    assert matched(data.z, found.rotate(data.seen))[0] > 0.9
    within = found.matrix.T @ within_covariance(data.seen, data.groups) @ found.matrix
    np.testing.assert_allclose(np.diag(within), 1, atol=1e-8)


def test_contrast_is_zero_for_a_normal():
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    expected = weights @ np.log(np.cosh(nodes)) / weights.sum()
    assert pytest.approx(expected, abs=1e-7) == NORMAL_LOG_COSH


def test_gradient_of_the_criterion():
    rng = np.random.default_rng(0)
    x, turn, toward = rng.normal(size=(7, 4)), rng.normal(size=(4, 4)), rng.normal(size=(4, 4))
    h = 1e-6
    numeric = (_criterion(x, turn + h * toward)[0] - _criterion(x, turn - h * toward)[0]) / (2 * h)
    assert (_criterion(x, turn)[1] * toward).sum() == pytest.approx(numeric, rel=1e-6)


def test_the_search_finds_axes_that_a_rotation_hid():
    """Rows with one entry each: their axes are the minimum."""
    entries = np.kron(np.eye(5), [[8.0], [-6.0], [20.0]])
    hidden = entries @ ortho_group.rvs(5, random_state=1)
    found = sparsest_rotation(hidden, np.ones(15), free_origin=False, n_starts=6, rng=np.random.default_rng(0))
    np.testing.assert_allclose(found.turn.T @ found.turn, np.eye(5), atol=1e-12)
    assert found.criterion == pytest.approx(smooth_l1(entries), rel=1e-8)
    np.testing.assert_allclose(np.sort(np.abs(hidden @ found.turn), axis=1)[:, :-1], 0, atol=1e-3)


def test_smooth_median_is_the_minimum():
    rng = np.random.default_rng(0)
    shifts, weights = rng.normal(size=(30, 1)) ** 3, rng.uniform(5, 20, 30)
    found = _smooth_median(shifts, weights, np.zeros(1))
    grid = np.linspace(-2, 2, 4001)
    values = [smooth_l1(weights * (shifts[:, 0] - point)) for point in grid]
    assert found[0] == pytest.approx(grid[int(np.argmin(values))], abs=2e-3)


def test_spatial_median_has_balanced_directions():
    points = np.random.default_rng(0).normal(size=(25, 3))
    gaps = points - spatial_median(points)
    np.testing.assert_allclose((gaps / np.linalg.norm(gaps, axis=1)[:, None]).sum(0), 0, atol=1e-4)


def test_moments_of_groups():
    rng = np.random.default_rng(0)
    z, groups = rng.normal(1e3, 1, size=(200, 3)), rng.integers(-1, 4, 200)
    found, used = group_moments(z.astype(np.float32), groups), groups >= 0
    z = z.astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(found.means, [z[groups == g].mean(0) for g in range(4)], rtol=1e-12)
    np.testing.assert_allclose(found.within, within_covariance(z[used], groups[used]), rtol=1e-9)


def test_what_cannot_be_rotated_is_refused():
    rng = np.random.default_rng(0)
    z, groups = rng.normal(size=(60, 3)), np.repeat([0, 1, 2], 20)
    with pytest.raises(ValueError, match=r"Only 1 perturbations .* beside the control"):
        sparse_rotation(z[:40], groups[:40], control=0)
    with pytest.raises(ValueError, match="Only 1 perturbations with at least 2 cells were found, "):
        sparse_rotation(z[:21], groups[:21])
    with pytest.raises(ValueError, match="`control` is 3, but the number of a group, from 0 to 2"):
        sparse_rotation(z, groups, control=3)
    with pytest.raises(ValueError, match="Group 1 of `groups` has no cells"):
        sparse_rotation(z, groups * 2)
    with pytest.raises(ValueError, match="5 cells in 3 groups, too few for a covariance of 3 dimensions"):
        sparse_rotation(z[:5], np.array([0, 0, 1, 1, 2]))
    with pytest.raises(ValueError, match="no spread"):
        sparse_rotation(np.eye(3)[groups], groups)
    with pytest.raises(ValueError, match="same mean"):
        sparse_rotation(np.tile([[1.0], [-1.0]], (30, 1)), groups)
    with pytest.raises(ValueError, match="NaN"):
        sparse_rotation(np.where(z == z[3, 1], np.nan, z), groups)
    with pytest.raises(ValueError, match=r"shape \(60, 3\) and `groups` \(59,\)"):
        sparse_rotation(z, groups[1:])
