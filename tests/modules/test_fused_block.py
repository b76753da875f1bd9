import copy

import pytest
import torch
from modules.small_models import counts_of

from scanpy_scvi.modules import mlp, precision
from scanpy_scvi.modules.count_linear import is_sparse
from scanpy_scvi.modules.mlp import CovariateLinear, DenseBlock
from scanpy_scvi.modules.precision import reduced_precision
from scanpy_scvi.modules.wide_linear import wide_linear

N, N_IN, N_OUT = 40, 30, 16


@pytest.fixture
def bfloat16(monkeypatch):
    """Pretend that the processor gains by bfloat16, as the products work on any."""
    monkeypatch.setattr(precision, "bfloat16_pays", lambda: True)


def inputs(kind, *, seed=0):
    torch.manual_seed(seed)
    if kind == "hidden":
        return torch.randn(N, N_IN, requires_grad=True)
    return counts_of(torch.poisson(torch.full((N, N_IN), 0.1 if kind == "sparse" else 2.0)).numpy())


def run(block, h, covariates, slope):
    out = block(h, covariates)
    out.backward(slope)
    d_h = [h.grad.clone()] if isinstance(h, torch.Tensor) else []
    h_free = [p.grad for p in block.parameters()]
    return [out.detach(), *d_h, *h_free, *block.buffers()]


def both(kind, n_covariates, monkeypatch, shift=0.0):
    torch.manual_seed(1)
    block = DenseBlock(N_IN, N_OUT, n_covariates, norm="batch", norm_momentum=0.1, dropout_rate=0.0)
    with torch.no_grad():
        block.norm.weight.uniform_(0.5, 2)
        block.norm.bias.uniform_(shift - 1, shift + 1)
    plain, covariates, slope = copy.deepcopy(block), torch.eye(3)[torch.arange(N) % 3], torch.randn(N, N_OUT)
    fused = run(block, inputs(kind), covariates[:, :n_covariates], slope)
    monkeypatch.setattr(mlp, "can_fuse", lambda *_: False)
    return fused, run(plain, inputs(kind), covariates[:, :n_covariates], slope)


@pytest.mark.parametrize("n_covariates", [0, 3])
@pytest.mark.parametrize("kind", ["hidden", "sparse", "dense"])
def test_equals_the_modules_of_torch(kind, n_covariates, monkeypatch):
    if kind != "hidden":
        assert is_sparse(inputs(kind)) == (kind == "sparse")
    for fused, plain in zip(*both(kind, n_covariates, monkeypatch), strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-4)


def test_deep_counts_in_reduced_precision_differ_by_rounding_alone(bfloat16, monkeypatch):
    all_on = 10.0  # or a unit near zero is on in one precision and off in the other
    with reduced_precision(allowed=True):
        reduced = both("dense", 3, monkeypatch, all_on)[0]
    exact = both("dense", 3, monkeypatch, all_on)[1]
    assert not torch.equal(reduced[0], exact[0])
    for a, b in zip(reduced, exact, strict=True):
        assert torch.linalg.vector_norm((a - b).float()) < 0.01 * torch.linalg.vector_norm(b.float()) + 1e-3


def test_evaluation_and_one_cell_take_the_modules_of_torch():
    block = DenseBlock(N_IN, N_OUT, 0, norm="batch", norm_momentum=0.1, dropout_rate=0.5).eval()
    h = inputs("hidden").detach()
    assert torch.equal(block(h, h[:, :0]), block(h, h[:, :0]))
    with pytest.raises(ValueError, match="more than 1 value"):
        block.train()(h[:1], h[:1, :0])


def test_dropout_follows_the_seed_of_torch():
    block = DenseBlock(N_IN, N_OUT, 0, norm="batch", norm_momentum=0.1, dropout_rate=0.5)
    h, outs = inputs("hidden").detach(), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append(block(h, h[:, :0]).detach())
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


@pytest.mark.parametrize("n_covariates", [0, 3])
def test_wide_product_in_bfloat16_differs_by_rounding_alone(n_covariates, bfloat16):
    linear = CovariateLinear(N_IN, 200, n_covariates)
    with torch.no_grad():
        linear.bias += 8  # the large common part of a logit, which must not be rounded
    covariates = torch.eye(3)[torch.arange(N) % 3] if n_covariates else None
    slope, results = torch.randn(N, 200), []
    for allowed in (False, True):
        h = inputs("hidden")
        linear.zero_grad()
        with reduced_precision(allowed=allowed):
            out = wide_linear(h, linear, covariates)
        out.backward(slope)
        results.append([out.detach(), h.grad, *(p.grad.clone() for p in linear.parameters())])
    assert not torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[1][0], results[0][0], rtol=0, atol=0.02)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.01 * float(b.abs().max()))


def test_precision_is_reduced_only_inside_its_block_and_where_it_pays(monkeypatch):
    monkeypatch.setattr(precision, "bfloat16_pays", lambda: True)
    assert not precision.is_reduced()
    with reduced_precision(allowed=True):
        assert precision.is_reduced()
        with reduced_precision(allowed=False):
            assert not precision.is_reduced()
        assert precision.is_reduced()
    assert not precision.is_reduced()
    monkeypatch.setattr(precision, "bfloat16_pays", lambda: False)
    with reduced_precision(allowed=True):
        assert not precision.is_reduced()
