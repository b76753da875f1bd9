import numpy as np
import pytest

from scanpy_scvi.training import TrainingConfig
from scanpy_scvi.training.config import STEPS, default_max_epochs
from scanpy_scvi.training.schedule import Schedule

PER_EPOCH = 10


def schedule(**changes):
    fields = {"max_epochs": 50, "learning_rate": 0.02, "warmup_steps": 20}
    fields |= {"patience_steps": 40, "min_improvement": 1e-3}
    return Schedule(TrainingConfig(**(fields | changes)), steps_per_epoch=PER_EPOCH)


def test_rate_rises_in_equal_steps_to_the_rate_asked_for_and_stays():
    s = schedule()
    rates = [s.rate(e, i) for e in range(5) for i in range(PER_EPOCH)]
    np.testing.assert_allclose(rates, 0.02 * np.minimum(1, (np.arange(50) + 1) / 20))


def test_rate_without_a_rise():
    s = schedule(warmup_steps=0)
    assert s.rate(0, 0) == s.rate(3, 4) == 0.02


def test_scale_lowers_all_rates():
    s = schedule()
    before = s.rate(0, 3), s.rate(9, 9)
    s.scale = 0.1
    np.testing.assert_allclose((s.rate(0, 3), s.rate(9, 9)), np.multiply(before, 0.1))


def test_kl_weight_rises_over_its_share_of_the_epochs():
    s = schedule(kl_weight=2.0, kl_warmup=0.2)
    weights = [s.kl_weight(e, i) for e in range(50) for i in range(PER_EPOCH)]
    np.testing.assert_allclose(weights, 2 * np.minimum(1, np.arange(500) / 100))


def test_kl_weight_without_warmup_is_full_from_the_first_step():
    assert schedule(kl_weight=0.7).kl_weight(0, 0) == 0.7


def epochs_until_stop(bounds, ceiling=0.0, **changes):
    s = schedule(**changes)
    for epoch, bound in enumerate(bounds):
        s.end_epoch(epoch, bound, ceiling)
        if s.plateau:
            return epoch + 1
    return None


def test_a_flat_bound_stops_the_fit_after_the_patience():
    assert epochs_until_stop([-100.0] * 50) == 1 + 4
    assert epochs_until_stop([-100.0] * 50, patience_steps=200) == 1 + 20


@pytest.mark.parametrize("shift", [99.9, 100.0, 1e4])
def test_bounds_of_densities_stop_where_those_of_probabilities_do(shift):
    bounds = -100.0 - 20 * 0.8 ** np.arange(50)
    assert epochs_until_stop(bounds + shift, ceiling=shift) == epochs_until_stop(bounds)


def test_at_least_two_epochs_are_waited_for():
    assert epochs_until_stop([-100.0] * 50, patience_steps=1) == 1 + 2


def test_small_gains_do_not_count_and_large_ones_do():
    steps = np.arange(50)
    assert epochs_until_stop(-100 + 0.02 * steps, patience_steps=30) == 4  # 0.06 nats of 100 in the patience
    assert epochs_until_stop(-100 + 0.2 * steps) is None
    assert epochs_until_stop(np.r_[-100 + 0.2 * steps[:20], [-90.0] * 30, [-95.0] * 9]) == 21 + 4


def test_no_stop_where_it_is_not_wanted_or_the_kl_weight_still_grows():
    assert epochs_until_stop([-100.0] * 50, early_stopping=False) is None
    assert epochs_until_stop([-100.0] * 50, kl_warmup=0.5) == 25 + 1 + 4


@pytest.mark.parametrize("batch_size", [32, 128, 512])
def test_budget_is_a_number_of_steps_within_limits(batch_size):
    epochs = [default_max_epochs(n, batch_size) for n in np.logspace(1, 7, 50).astype(int)]
    assert np.all(np.diff(epochs) <= 0)
    assert min(epochs) >= 1
    inside = [n for n in np.logspace(3, 6, 50) if min(epochs) < default_max_epochs(n, batch_size) < max(epochs)]
    steps = [default_max_epochs(n, batch_size) * n / batch_size for n in inside]
    assert inside
    np.testing.assert_allclose(steps, STEPS, rtol=0.06)


@pytest.mark.parametrize(("n_cells", "epochs"), [(100, 400), (20_000, 400), (25_000, 320), (10**5, 80), (10**6, 8)])
def test_budget_of_scvi_tools(n_cells, epochs):
    assert default_max_epochs(n_cells, preset="scvi-tools") == epochs
