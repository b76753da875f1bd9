import numpy as np
import pytest
import torch
from torch import nn

from scanpy_scvi.modules.mlp import CovariateLinear
from scanpy_scvi.training import TrainingConfig
from scanpy_scvi.training.memory import WIDE
from scanpy_scvi.training.optimizer import CLIPPED_FROM, AveragedAdam, Snapshot


class Net(nn.Module):
    """Wide and small parameters in both memory orders, running statistics, and a parameter without use."""

    def __init__(self):
        super().__init__()
        self.wide = CovariateLinear(WIDE // 8, 8, 3)
        self.norm = nn.BatchNorm1d(8)
        self.small = nn.Linear(8, 2)
        self.idle = nn.Parameter(torch.ones(4))

    def forward(self, x, s):
        return self.small(self.norm(self.wide(x, s))).square().sum()


def make(dtype=torch.float32, **settings):
    torch.manual_seed(0)
    model = Net().to(dtype)
    return model, AveragedAdam(model, TrainingConfig(max_epochs=1, adam_eps=1e-3, averaging=0.2, **settings))


def batches(n, dtype=torch.float32):
    rng = np.random.default_rng(1)
    for _ in range(n):
        yield tuple(torch.from_numpy(rng.normal(size=(16, k))).to(dtype) for k in (WIDE // 8, 3))


def run(model, optimizer, n, *, dtype=torch.float32):
    for x, s in batches(n, dtype):
        model(x, s).backward()
        optimizer.step(1e-2)


@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_adam_of_torch(weight_decay, dtype):
    model, optimizer = make(dtype, weight_decay=weight_decay)
    run(model, optimizer, 12, dtype=dtype)
    torch.manual_seed(0)
    twin = Net().to(dtype)
    adam = torch.optim.Adam(twin.parameters(), lr=1e-2, eps=1e-3, weight_decay=weight_decay)
    for x, s in batches(12, dtype):
        adam.zero_grad()
        twin(x, s).backward()
        adam.step()
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        if name != "idle":  # torch's leaves a parameter without a gradient alone, decay included
            torch.testing.assert_close(p, q, rtol=2e-4, atol=2e-5, msg=name)


def test_kernel_and_torch_formula_agree_with_their_averages():
    (fast, kernel), (slow, formula) = make(), make()
    formula._has_kernel = False
    run(fast, kernel, 10)
    run(slow, formula, 10)
    for a, b in zip(kernel.state(), formula.state(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_parameters_keep_their_shape_and_memory_order_and_get_their_own_memory_back():
    torch.manual_seed(0)
    before = {name: (p.shape, p.stride(), p.detach().clone()) for name, p in Net().named_parameters()}
    model, optimizer = make()
    assert len(optimizer.blocks) == 2
    optimizer.release()
    for name, p in model.named_parameters():
        shape, stride, value = before[name]
        assert (p.shape, p.stride()) == (shape, stride)
        assert torch.equal(p, value)
        assert p.untyped_storage().nbytes() == p.numel() * p.element_size()


def test_a_snapshot_goes_back_to_the_bit_and_the_steps_after_it_repeat():
    model, optimizer = make()
    run(model, optimizer, 3)
    snapshot = Snapshot(optimizer)
    run(model, optimizer, 4)
    first = [t.clone() for t in optimizer.state()]
    snapshot.restore()
    assert optimizer.n_steps == optimizer.average.n_steps == 3
    run(model, optimizer, 4)
    assert all(torch.equal(a, b) for a, b in zip(first, optimizer.state(), strict=True))


def test_a_gradient_far_beyond_the_usual_is_shortened_and_others_are_not():
    model, optimizer = make()
    (x, s), *_ = batches(1)
    for n in range(40):
        model(x, s).backward()
        scale = 1e6 if n in {10, 30} else 1.0
        for p in model.parameters():
            if p.grad is not None:
                p.grad *= scale
        norm = torch.linalg.vector_norm(torch.cat([b.gradient() for b in optimizer.blocks]))
        usual = optimizer.usual_norm
        gradients = [b.gradient().clone() for b in optimizer.blocks]
        optimizer.n_steps += 1
        optimizer._clip(gradients)
        optimizer.n_steps -= 1
        optimizer.usual_norm = usual
        after = torch.linalg.vector_norm(torch.cat(gradients))
        shortened = n == 30  # in the first steps nothing is usual yet
        torch.testing.assert_close(after, torch.tensor(CLIPPED_FROM * usual) if shortened else norm, rtol=1e-4, atol=0)
        if n == 10:
            for p in model.parameters():
                p.grad = None
        else:
            optimizer.step(1e-4)


def test_a_strange_start_does_not_poison_the_usual_norm():
    _, optimizer = make()
    zero = [torch.zeros_like(b.weights) for b in optimizer.blocks]
    for n in range(25):  # nothing is usual about a gradient of zero
        optimizer.n_steps = n + 1
        optimizer._clip([torch.full_like(z, torch.inf) for z in zero] if n == 3 else [z.clone() for z in zero])
    assert optimizer.usual_norm == 0
    ones = [torch.ones_like(z) for z in zero]
    optimizer._clip(ones)
    assert all((g == 1).all() for g in ones)
