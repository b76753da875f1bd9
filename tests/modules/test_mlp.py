import numpy as np
import pytest
import torch
from torch import nn

from scanpy_scvi.modules.mlp import MLP, CovariateLinear, DenseBlock
from scanpy_scvi.training import seeded


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0):
        yield


def inputs(n=11, n_in=5, n_covariates=3):
    return torch.randn(n, n_in), torch.randn(n, n_covariates)


def test_covariate_linear_equals_a_linear_map_of_the_concatenation():
    h, s = inputs()
    ours, plain = CovariateLinear(5, 4, 3), nn.Linear(8, 4)
    with torch.no_grad():
        plain.weight.copy_(torch.cat([ours.weight, ours.covariate_weight], 1))
        plain.bias.copy_(ours.bias)
    a, b = ours(h, s), plain(torch.cat([h, s], 1))
    torch.testing.assert_close(a, b)
    a.square().sum().backward()
    b.square().sum().backward()
    torch.testing.assert_close(torch.cat([ours.weight.grad, ours.covariate_weight.grad], 1), plain.weight.grad)
    torch.testing.assert_close(ours.bias.grad, plain.bias.grad)


def test_covariate_linear_without_covariates_has_no_weight_for_them():
    linear = CovariateLinear(5, 4)
    assert [name for name, _ in linear.named_parameters()] == ["weight", "bias"]
    h, s = inputs(n_covariates=0)
    torch.testing.assert_close(linear(h, s), nn.functional.linear(h, linear.weight, linear.bias))


@pytest.mark.parametrize("n_covariates", [0, 40])
def test_start_is_that_of_torch(n_covariates):
    linear = CovariateLinear(60, 500, n_covariates)
    limit = 1 / np.sqrt(60 + n_covariates)
    for parameter in linear.parameters():
        values = parameter.detach().numpy()
        assert 0.98 * limit < np.abs(values).max() <= limit * (1 + 1e-6)
        assert values.std() == pytest.approx(limit / np.sqrt(3), rel=0.1)


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("train", [True, False])
def test_block_is_linear_norm_relu(norm, train):
    h, s = inputs(n=40)
    block = DenseBlock(5, 6, 3, norm=norm, norm_momentum=0.25, dropout_rate=0.0)
    block.train(train)
    out = block(h, s)
    linear = block.linear(h, s).detach()
    if norm == "batch":
        mean, var = (linear.mean(0), linear.var(0, unbiased=False)) if train else (torch.zeros(6), torch.ones(6))
        linear = (linear - mean) / (var + 1e-3).sqrt()
    if norm == "layer":
        linear = (linear - linear.mean(1, keepdim=True)) / (linear.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(out, linear.clamp_min(0), rtol=1e-4, atol=1e-5)


def test_running_statistics_follow_the_momentum():
    h, s = inputs(n=40)
    block = DenseBlock(5, 6, 3, norm="batch", norm_momentum=0.25, dropout_rate=0.0)
    block.train()(h, s)
    linear = block.linear(h, s).detach()
    torch.testing.assert_close(block.norm.running_mean, 0.25 * linear.mean(0))
    torch.testing.assert_close(block.norm.running_var, 0.75 + 0.25 * linear.var(0))


def test_dropout_comes_last_and_only_in_training():
    h, s = inputs(n=2000)
    block = DenseBlock(5, 6, 3, norm="none", norm_momentum=0.1, dropout_rate=0.4)
    kept = block.eval()(h, s)
    dropped = block.train()(h, s)
    alive = kept > 0
    assert (dropped[alive] == 0).float().mean() == pytest.approx(0.4, abs=0.02)
    survivors = alive & (dropped > 0)
    torch.testing.assert_close(dropped[survivors], kept[survivors] / 0.6)


@pytest.mark.parametrize("inject", [True, False])
def test_covariates_enter_all_layers_or_the_first_alone(inject):
    mlp = MLP(5, 3, n_hidden=6, n_layers=3, norm="batch", dropout_rate=0.0, inject_covariates=inject)
    has = [block.linear.covariate_weight is not None for block in mlp.blocks]
    assert has == ([True] * 3 if inject else [True, False, False])
    assert [tuple(block.linear.weight.shape) for block in mlp.blocks] == [(6, 5), (6, 6), (6, 6)]
    assert mlp(*inputs()).shape == (11, 6)


def test_repr_gives_the_sizes():
    assert repr(CovariateLinear(5, 4, 3)) == "CovariateLinear(5, 4, n_covariates=3)"
