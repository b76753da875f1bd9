import numpy as np
import pytest
import reference
import torch
from modules.small_models import build, spec, table, table_of
from scipy import stats
from torch import nn

from scanpy_scvi.modules import VAE
from scanpy_scvi.modules.decoders.base import DecoderOutput
from scanpy_scvi.modules.encoders.base import LatentPosterior
from scanpy_scvi.modules.libraries import ObservedLibrary
from scanpy_scvi.modules.priors import StandardNormal
from scanpy_scvi.posterior import importance
from scanpy_scvi.posterior.importance import reweight
from scanpy_scvi.posterior.scales import Draws, draw_scales

CPU = torch.device("cpu")
W = torch.tensor([1.0, 2.0])


class Skewed(nn.Module):
    """The exact posterior of x | z ~ N(W z, I), z ~ N(0, 1), shifted and widened."""

    def __init__(self, shift, widen):
        super().__init__()
        self.shift, self.widen = shift, widen

    def forward(self, cells):
        x = cells.counts.log1p().expm1()
        mean = (x @ W)[:, None] / 6
        return LatentPosterior(mean + self.shift, torch.full_like(mean, self.widen / 6))


class Linear(nn.Module):
    def forward(self, z, cells):
        return DecoderOutput(z * W, z)


class Gaussian(nn.Module):
    def nll(self, output, log_library, cells):
        x = cells.counts.log1p().expm1()
        return 0.5 * ((x - output.params) ** 2 + np.log(2 * np.pi)).sum(1)


def toy(shift=0.4, widen=2.0):
    return VAE(Skewed(shift, widen), ObservedLibrary(None), Linear(), Gaussian(), StandardNormal(None))


@pytest.fixture
def data():
    """Cells of which the exact posteriors are N((x1 + 2 x2) / 6, 1/6); counts need not be whole here."""
    return table_of(np.array([[0.1, 0.2], [1.0, 1.5], [3.0, 2.0]]))


@pytest.mark.parametrize(("spread", "nearest"), [(1, 8), (1, 2), (6, 1)])
def test_draws_follow_the_exact_posterior(data, spread, nearest, monkeypatch):
    """Of cells near each other, and of cells so far apart that one term of the numerator is enough."""
    monkeypatch.setattr(importance, "NEAREST", nearest)
    data = table_of(spread * reference.dense(data.counts, 2))
    draws, n_effective = reweight(toy(), data, Draws(np.resize(np.arange(3), 6000), None), random_state=0, device=CPU)
    means = spread * np.array([0.5, 4.0, 7.0]) / 6
    grid = np.linspace(-1, 2.5 * spread, 30)
    exact = stats.norm(means, 6**-0.5).cdf(grid[:, None]).mean(1)
    found = (draws.z[:, 0] <= grid[:, None]).mean(1)
    assert np.abs(found - exact).max() < 0.05
    uncorrected = stats.norm(means + 0.4, (2 / 6) ** 0.5).cdf(grid[:, None]).mean(1)
    assert np.abs(uncorrected - exact).max() > 0.1
    assert 1000 < n_effective < 6000


def test_with_the_exact_posterior_all_weights_are_equal(data):
    _, n_effective = reweight(
        toy(0.0, 1.0), data, Draws(np.resize(np.arange(3), 600), None), random_state=0, device=CPU
    )
    assert n_effective == pytest.approx(600, rel=1e-3)


def test_weights_are_truncated_from_above():
    weights = importance._truncated(np.append(np.zeros(99), 5.0))
    top = np.exp(5.0)
    kept = np.append(np.ones(99), min(top, 10 * (99 + top) / 100))
    np.testing.assert_allclose(weights, kept / kept.mean(), rtol=1e-6)
    few = np.log([1.0, 1.5, 0.5])
    np.testing.assert_allclose(importance._truncated(few), [1.0, 1.5, 0.5])


def test_a_few_draws_that_carry_all_weight_keep_it():
    weights = importance._truncated(np.repeat([0.0, -800.0], [3, 997]))
    assert weights[3:].max() < 1e-100
    np.testing.assert_allclose(weights[:3], 1000 / 3)
    with pytest.raises(FloatingPointError, match="no finite likelihood"):
        importance._truncated(np.array([0.0, np.nan]))


def test_systematic_resampling_takes_each_about_as_often_as_its_weight_asks():
    weights = np.array([0.0, 0.5, 2.5, 1.0])
    times = np.bincount(importance._systematic(np.tile(weights, 50), np.random.default_rng(0)), minlength=200)
    assert np.abs(times - np.tile(weights, 50)).max() < 1
    assert times.sum() == 200


def test_batches_stay_in_place_and_seeds_decide():
    data, model = table(), build(spec())
    planned = Draws(np.resize(np.arange(20), 90), np.repeat([0, 1, 2], 30))
    first, again, other = (reweight(model, data, planned, random_state=s, device=CPU).draws for s in (1, 1, 2))
    np.testing.assert_array_equal(first.z, again.z)
    assert (first.z != other.z).any()
    np.testing.assert_array_equal(first.batch, planned.batch)
    scales = draw_scales(model, data, first, random_state=0, device=CPU)
    np.testing.assert_array_equal(scales, draw_scales(model, data, again, random_state=5, device=CPU))
