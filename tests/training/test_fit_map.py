import numpy as np
import pytest
import torch

from scanpy_scvi.modules.map_network import MapNetwork
from scanpy_scvi.training.config import TrainingConfig
from scanpy_scvi.training.fit_map import fit_map
from scanpy_scvi.training.random import seeded

CONFIG = TrainingConfig(max_epochs=60, adam_eps=1e-8, patience_steps=150, min_improvement=1e-2)


def fitted(x, y, config=CONFIG):
    with seeded(0):
        network = MapNetwork(x.shape[1], y.shape[1], n_hidden=32, n_layers=2)
    return network, fit_map(network, x, y, config)


@pytest.fixture(scope="module")
def cells():
    """A rotated and bent plane in five dimensions."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 5))
    y = np.column_stack([10 * np.sin(x[:, 0]) + x[:, 1], 5 * x[:, 1] - x[:, 0] ** 2]) + 100
    return x, y


def test_a_smooth_map_is_recovered(cells):
    x, y = cells
    network, fit = fitted(x[:500], y[:500])
    error = np.linalg.norm(network.place(x[500:]) - y[500:], axis=1)
    assert np.median(error) < 0.1 * np.sqrt(y.var(0).sum())
    assert fit.history[-1].validation_error < 0.2 * fit.history[0].validation_error


def test_the_best_weights_are_kept(cells):
    x, y = cells
    network, fit = fitted(x, y)
    errors = [record.validation_error for record in fit.history]
    assert fit.best_epoch == 1 + int(np.argmin(errors))
    held = fit.validation_rows
    again = np.linalg.norm(network.place(x[held]) - y[held], axis=1).mean()
    np.testing.assert_allclose(again, min(errors), rtol=1e-4)
    assert len(held) == 60


def test_what_cannot_be_told_goes_to_the_larger_group():
    """With the square of the distance it would lie at 3.5, between the two."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2))
    y = np.column_stack([np.where(rng.uniform(size=400) < 0.65, 0.0, 10.0), np.zeros(400)])
    network, _ = fitted(x, y, TrainingConfig(max_epochs=30, adam_eps=1e-8))
    assert abs(np.median(network.place(rng.normal(size=(200, 2)))[:, 0])) < 1


def test_without_held_out_cells_the_last_weights_are_kept(cells):
    x, y = cells
    _, fit = fitted(x, y, TrainingConfig(max_epochs=4, validation_size=0, early_stopping=False))
    assert len(fit.history) == fit.best_epoch == 4
    assert np.isnan([record.validation_error for record in fit.history]).all()


def test_bits_and_global_state(cells):
    x, y = cells
    torch.manual_seed(5)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    first, second = (fitted(x, y)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(before, torch.random.get_rng_state())
    assert threads == torch.get_num_threads()


def test_exact_places_give_no_nan():
    """The gradient of a distance of zero is not a number unless it is softened."""
    x, y = np.random.default_rng(0).normal(size=(40, 3)), np.ones((40, 2))
    network, _ = fitted(x, y, TrainingConfig(max_epochs=3))
    assert np.isfinite(network.place(x)).all()


def test_extreme_values_are_an_error():
    x, y = np.random.default_rng(0).normal(size=(40, 3)), np.full((40, 2), 1e300)
    with pytest.raises(ValueError, match="infinite or NaN"), np.errstate(over="ignore"):
        fitted(x, y)
