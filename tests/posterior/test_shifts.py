import numpy as np
import pytest

from scanpy_scvi.posterior.shifts import Sides, resampled, within_types

N_TYPES = 5


def levels(held_out=None, n=40, spread=0.0, seed=0):
    """Latent states at a level of each type and a shift; all types have as many cells. Levels, shift, states, sides."""
    rng = np.random.default_rng(seed)
    level, shift = rng.normal(0, 3, (N_TYPES, 2)), np.array([1.0, -2.0])
    types, target = np.repeat(np.arange(N_TYPES), 2 * n), np.tile(np.repeat([False, True], n), N_TYPES)
    keep = ~(target & (types == held_out)) if held_out is not None else np.ones(len(types), bool)
    types, target = types[keep], target[keep]
    z = level[types] + target[:, None] * shift + rng.normal(0, spread, (len(types), 2))
    return level, shift, z, Sides.of(types, N_TYPES, ~target, target)


def test_differences_within_types_do_not_ask_how_many_cells_each_has():
    """Types whose own shifts differ, with 3 to 50 cells: each counts once."""
    rng = np.random.default_rng(1)
    own = rng.normal(0, 1, (N_TYPES, 2))
    sizes = rng.integers(3, 50, (N_TYPES, 2))
    types = np.concatenate([np.full(n.sum(), t) for t, n in enumerate(sizes)])
    target = np.concatenate([np.repeat([False, True], n) for n in sizes])
    z = 10.0 * types[:, None] + target[:, None] * own[types]
    found = within_types(z, Sides.of(types, N_TYPES, ~target, target), rng)
    np.testing.assert_allclose(found.delta, own.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.replicates, own, rtol=1e-9, atol=1e-12)
    assert found.of_types


def test_cells_without_a_type_or_of_other_conditions_are_on_no_side():
    types, source, target = np.array([-1, 0, 0, 1, 1]), *np.array([[1, 1, 0, 0, 0], [0, 0, 1, 1, 0]], bool)
    sides = Sides.of(types, 2, source, target)
    assert [s.tolist() for s in sides.source] == [[1], []]
    assert [t.tolist() for t in sides.target] == [[2], [3]]
    assert sides.sizes().tolist() == [[1, 1], [0, 1]]
    assert [t.tolist() for t in sides.only(np.array([1])).target] == [[3]]


@pytest.mark.parametrize("held_out", [None, 3])
def test_the_bias_of_composition_is_that_of_the_formula(held_out):
    """scGen's way has a C-th of the distance from the held-out type to the others in it; within types there is none."""
    level, shift, z, sides = levels(held_out)
    seen = [t for t in range(N_TYPES) if t != held_out]
    exact = within_types(z, sides.only(np.array(seen)), np.random.default_rng(0))
    np.testing.assert_allclose(exact.delta, shift, rtol=1e-12)
    bias = 0.0 if held_out is None else (level[seen].mean(0) - level[held_out]) / N_TYPES
    draws = np.concatenate([resampled(z, sides, np.random.default_rng(seed)).replicates for seed in range(20)])
    error = draws.std(0) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(0) - shift - bias) < 4 * error + 1e-12).all()
    assert held_out is None or (np.abs(bias) > 20 * error).all()  # or the test would prove nothing


def test_types_of_unequal_size_weigh_the_same_when_resampled():
    z = np.r_[np.zeros(90), np.full(10, 1.0), np.zeros(30), np.full(30, 2.0)][:, None]
    types, target = np.repeat([0, 1, 0, 1], [90, 10, 30, 30]), np.repeat([False, True], [100, 60])
    found = resampled(z, Sides.of(types, 2, ~target, target), np.random.default_rng(0))
    np.testing.assert_allclose(found.replicates.mean(), 1.0 - 0.5, atol=0.02)


def test_with_one_type_the_cells_tell_how_uncertain_the_difference_of_two_means_is():
    rng = np.random.default_rng(0)
    z = rng.normal(0, 1, (900, 40)) * np.repeat([1.0, 3.0], [600, 300])[:, None]
    target = np.arange(900) >= 600
    found = within_types(z, Sides.of(np.zeros(900, np.int64), 1, ~target, target), rng)
    assert not found.of_types
    np.testing.assert_allclose(found.delta, z[600:].mean(0) - z[:600].mean(0))
    spread = found.replicates.std(0, ddof=1)
    np.testing.assert_allclose(np.sqrt((spread**2).mean()), np.sqrt(1 / 600 + 9 / 300), rtol=0.1)


@pytest.mark.parametrize("kind", [within_types, resampled])
def test_the_same_seed_gives_the_same_bits(kind):
    *_, z, sides = levels(3, spread=1.0)
    sides = sides.only(np.array([0])) if kind is within_types else sides
    first, again, other = (kind(z, sides, np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.replicates, again.replicates)
    np.testing.assert_array_equal(first.delta, again.delta)
    assert (first.replicates != other.replicates).any()
