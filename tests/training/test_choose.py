from dataclasses import replace

import numpy as np
import pytest
import torch
from modules.small_models import spec, table

from scanpy_scvi.modules import Part
from scanpy_scvi.training import TrainingConfig, fit, seeded
from scanpy_scvi.training.choose import PATIENCE, choose

CONFIG = TrainingConfig(max_epochs=4, batch_size=20)
DATA = table(60)


def specs(*numbers):
    return [spec(prior=Part("mixture", {"n_latent": 3, "n_components": k})) for k in numbers]


def chosen(*numbers):
    with seeded(0):
        return choose(specs(*numbers), DATA, CONFIG)


def test_a_single_model_is_fitted_as_ever():
    found = chosen(3)
    with seeded(0):
        alone = specs(3)[0].build()
        fit(alone, DATA, CONFIG)
    assert found.candidates is None
    for name, tensor in alone.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], tensor), name


def test_the_best_bound_wins():
    found = chosen(1, 2, 4)
    tried = found.candidates
    best = int(np.argmax(tried.bound))
    assert list(tried.n_components) == [1, 2, 4][: len(tried.bound)]
    assert found.spec.prior.options["n_components"] == tried.n_components[best]
    assert found.result.convergence.best_elbo == tried.bound[best]
    assert found.model.prior.means.shape[0] == tried.n_components[best]


def test_no_more_are_tried_after_some_that_bring_nothing(monkeypatch):
    falling = iter([-1.0, -2.0, -3.0, -4.0, -5.0, -6.0])

    def worse_and_worse(model, data, config, **options):
        result = fit(model, data, replace(config, max_epochs=1), **options)
        return result._replace(convergence=replace(result.convergence, best_elbo=next(falling)))

    monkeypatch.setattr("scanpy_scvi.training.choose.fit", worse_and_worse)
    assert len(chosen(1, 2, 3, 4, 5).candidates.bound) == 1 + PATIENCE


@pytest.mark.parametrize("numbers", [(2, 3), (1, 2)])
def test_the_same_seed_gives_the_same_bits(numbers):
    first, second = chosen(*numbers), chosen(*numbers)
    np.testing.assert_array_equal(first.candidates.bound, second.candidates.bound)
    assert torch.equal(first.model.prior.means, second.model.prior.means)


def test_an_interrupt_of_the_first_fit_ends_the_choice():
    epochs = []

    def stop(record):
        epochs.append(record.epoch)
        if len(epochs) == 2:
            raise KeyboardInterrupt

    with seeded(0):
        found = choose(specs(1, 2, 4), DATA, CONFIG, on_epoch=stop, on_interrupt="keep")
    assert epochs == [1, 2]
    assert found.result.convergence.verdict == "interrupted"
    assert found.spec.prior.options["n_components"] == 1
    assert found.candidates is None
