import numpy as np
import pytest
import torch
from torch import nn

from scanpy_scvi.training.average import WeightAverage


def floats(model):
    return [t for t in model.state_dict().values() if t.is_floating_point()]


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def walk(model, average, n, seed=0):
    """Move the weights n times at random and return the path of each float tensor."""
    rng = np.random.default_rng(seed)
    path = []
    for _ in range(n):
        with torch.no_grad():
            for tensor in model.state_dict().values():
                if tensor.is_floating_point():
                    tensor += torch.from_numpy(rng.normal(size=tensor.shape).astype(np.float32))
        average.update()
        path.append({k: v.numpy().copy() for k, v in model.state_dict().items() if v.is_floating_point()})
    return path


def averaged(model, average):
    with average.swapped_in():
        return {k: v.numpy().copy() for k, v in model.state_dict().items() if v.is_floating_point()}


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 1.0])
def test_against_a_computation_by_hand(share, model):
    average = WeightAverage(floats(model), share)
    path = walk(model, average, 25)
    for name, value in averaged(model, average).items():
        expected = np.zeros_like(value, dtype=np.float64)
        for n, step in enumerate(path):
            expected += (step[name] - expected) / (1 + share * n)
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


def test_share_one_is_the_plain_mean_and_share_zero_the_last(model):
    mean, last = WeightAverage(floats(model), 1.0), WeightAverage(floats(model), 0.0)
    mean_path = walk(model, mean, 12)
    for name, value in averaged(model, mean).items():
        np.testing.assert_allclose(value, np.mean([step[name] for step in mean_path], axis=0), rtol=1e-4, atol=1e-5)
    last_path = walk(model, last, 12)
    for name, value in averaged(model, last).items():
        assert np.array_equal(value, last_path[-1][name])


def test_running_statistics_are_averaged_and_counters_are_not(model):
    average = WeightAverage(floats(model), 0.5)
    walk(model, average, 3)
    model[1].num_batches_tracked += 7
    with average.swapped_in():
        assert model[1].num_batches_tracked == 7
        inside = model[1].running_mean.clone()
    assert not torch.equal(inside, model[1].running_mean)


def test_live_weights_come_back_even_after_an_error(model):
    average = WeightAverage(floats(model), 0.5)
    walk(model, average, 3)
    live = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(KeyboardInterrupt), average.swapped_in():
        raise KeyboardInterrupt
    assert all(torch.equal(v, live[k]) for k, v in model.state_dict().items())


def test_what_somebody_else_has_averaged_is_left_alone(model):
    average = WeightAverage(floats(model), 0.5)
    walk(model, average, 3)
    before = [v.clone() for v in average.values]
    with torch.no_grad():
        model[0].weight += 1
        model[1].running_mean += 1
    average.update(done=2)
    moved = [not torch.equal(v, b) for v, b in zip(average.values, before, strict=True)]
    assert not any(moved[:2])
    assert any(moved[2:])
    assert average.n_steps == 4
