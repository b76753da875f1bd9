import numpy as np
import pytest
import torch

from scanpy_scvi.training import fit, minibatches, seeded
from scanpy_scvi.training.fit import EVALUATION_BATCH


def bits(model):
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


@torch.no_grad()
def bound(model, table, rows, seed):
    """Mean ELBO of cells, with the noise that the fit uses."""
    with seeded(seed):
        elbo = [-model(table.take(chunk)).loss() for chunk in minibatches(rows, EVALUATION_BATCH)]
    return torch.cat(elbo).double().mean().item()


def test_history_is_complete(data, make_model, config):
    seen = []
    result = fit(make_model(), data.table, config(max_epochs=5), on_epoch=seen.append)
    assert [record.epoch for record in result.history] == [1, 2, 3, 4, 5]
    assert seen == result.history
    assert np.isfinite(np.array(result.history)).all()
    assert all(record.kl > 0 for record in result.history)


def test_history_tells_rate_and_kl_weight_at_the_end_of_each_epoch(data, make_model, config):
    settings = config(max_epochs=10, kl_warmup=0.5, kl_weight=2.0, learning_rate=0.01, warmup_steps=8)
    history = fit(make_model(), data.table, settings).history  # 108 cells in minibatches of 32: 4 steps an epoch
    steps = 4 * np.arange(1, 11)
    np.testing.assert_allclose([r.learning_rate for r in history], 0.01 * np.minimum(1, steps / 8))
    np.testing.assert_allclose([r.kl_weight for r in history], 2 * np.minimum(1, (steps - 1) / 20))


def test_training_improves_the_bound_of_held_out_cells(data, make_model, config):
    history = fit(make_model(), data.table, config(max_epochs=30)).history
    assert max(r.validation_elbo for r in history) > history[0].validation_elbo + 0.5
    assert history[-1].train_elbo > history[0].train_elbo + 1


def test_cells_are_held_out_and_never_trained_on(data, make_model, config):
    model, trained = make_model(), []
    model.register_forward_pre_hook(lambda m, args: trained.extend(args[0].index.tolist()) if m.training else None)
    result = fit(model, data.table, config(validation_size=0.25))
    assert len(result.validation_rows) == 30
    assert sorted(set(trained) | set(result.validation_rows)) == list(range(120))
    assert set(trained).isdisjoint(result.validation_rows)
    assert len(trained) == 4 * 90


@pytest.mark.parametrize("averaging", [0.0, 0.1])
def test_the_weights_kept_are_the_best_ones(averaging, data, make_model, config):
    model = make_model()
    rate = {"max_epochs": 60, "learning_rate": 0.1}
    settings = config(**rate, averaging=averaging, random_state=3, settle_dispersion=False)
    result = fit(model, data.table, settings)
    elbo = [record.validation_elbo for record in result.history]
    assert np.argmax(elbo) < len(elbo) - 1  # or the test would prove nothing
    assert result.convergence.best_elbo == max(elbo)
    assert result.convergence.best_epoch == np.argmax(elbo) + 1
    assert not model.training
    assert bound(model, data.table, result.validation_rows, 3) == pytest.approx(max(elbo), rel=1e-6)


def test_the_weights_kept_are_the_best_ones_under_the_weight_of_the_kl(data, make_model, config):
    settings = config(max_epochs=60, learning_rate=0.05, kl_weight=1e-3, early_stopping=True, patience_steps=80)
    result = fit(make_model(), data.table, settings)
    goal = [r.validation_elbo + (1 - 1e-3) * r.kl for r in result.history]
    unweighted = [r.validation_elbo for r in result.history]
    assert np.argmax(goal) > np.argmax(unweighted)  # or the test would prove nothing
    assert result.convergence.best_epoch == np.argmax(goal) + 1
    assert result.convergence.best_elbo == unweighted[np.argmax(goal)]


def test_the_last_weights_are_kept_where_the_best_are_not_asked_for(data, make_model, config):
    model = make_model()
    settings = config(max_epochs=60, learning_rate=0.1, averaging=0.0, keep_best=False, settle_dispersion=False)
    result = fit(model, data.table, settings)
    last = result.history[-1].validation_elbo
    assert last < max(record.validation_elbo for record in result.history)
    assert result.convergence.best_elbo == last
    assert bound(model, data.table, result.validation_rows, 0) == pytest.approx(last, rel=1e-6)


def test_the_fit_stops_when_the_bound_is_flat(data, make_model, config):
    settings = config(max_epochs=500, early_stopping=True, patience_steps=20, learning_rate=0.05)
    result = fit(make_model(), data.table, settings)  # 4 steps an epoch, so a patience of 5 epochs
    elbo = [record.validation_elbo for record in result.history]
    assert 5 < len(elbo) < 500
    assert max(elbo[-5:]) <= max(elbo[:-5]) + settings.min_improvement * abs(max(elbo))
    assert result.convergence.verdict == "converged"


def test_without_held_out_cells_the_training_bound_counts(data, make_model, config):
    result = fit(make_model(), data.table, config(validation_size=0))
    assert not len(result.validation_rows)
    assert all(np.isnan(record.validation_elbo) for record in result.history)
    assert result.convergence.best_elbo == max(record.train_elbo for record in result.history)


def test_one_epoch(data, make_model, config):
    result = fit(make_model(), data.table, config(max_epochs=1))
    assert len(result.history) == 1
    assert result.convergence.best_epoch == 1


def test_same_seed_same_bits_and_other_seed_other_bits(data, make_model, config):
    runs = []
    for seed in (0, 0, 1):
        model = make_model()
        with seeded(seed):
            history = fit(model, data.table, config(random_state=seed)).history
        runs.append((bits(model), history))
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[2][0]


def test_longer_fits_begin_as_shorter_ones(data, make_model, config):
    short, long = make_model(), make_model()
    with seeded(0):
        first = fit(short, data.table, config(max_epochs=3)).history
    with seeded(0):
        assert fit(long, data.table, config(max_epochs=6)).history[:3] == first


def test_weight_decay_shrinks_the_weights(data, make_model, config):
    norms = []
    for decay in (0.0, 1.0):
        model = make_model()
        fit(model, data.table, config(max_epochs=10, weight_decay=decay))
        norms.append(model.encoder.mean.weight.detach().norm().item())
    assert norms[1] < 0.8 * norms[0]
