"""Parts of a minibatch side by side: noise, dropout and batch normalisation are those of the whole."""

from functools import partial

import pytest
import torch
from together import Sums, side_by_side
from torch import nn

from scanpy_scvi.modules.encoders.base import LatentPosterior
from scanpy_scvi.modules.shared import Part, dropout, normal_like, of_shared_minibatch, shared_part
from scanpy_scvi.modules.shared_norm import shared_norm
from scanpy_scvi.training import seeded

EDGES = [0, 3, 4, 9]


def parts():
    sums = Sums(len(EDGES) - 1)
    return [Part(EDGES[-1], EDGES[i], EDGES[i + 1], sums.adder(i)) for i in range(len(EDGES) - 1)]


def own(part, tensor):
    return tensor[part.start : part.stop]


@pytest.mark.parametrize("shape", [(9,), (9, 4)])
def test_noise_is_that_of_the_whole(shape):
    like = torch.empty(shape)
    with seeded(3):
        whole, after = normal_like(like), torch.rand(())
    for part in parts():
        with seeded(3), of_shared_minibatch(part):
            assert torch.equal(normal_like(own(part, like)), own(part, whole))
            assert torch.equal(torch.rand(()), after)  # all go on from the same place
    assert shared_part() is None


def test_a_draw_of_z_is_that_of_the_whole():
    with seeded(0):
        q = LatentPosterior(torch.randn(9, 2), torch.rand(9, 2))
        with seeded(1):
            whole = q.sample()
        for part in parts():
            with seeded(1), of_shared_minibatch(part):
                assert torch.equal(LatentPosterior(own(part, q.mean), own(part, q.var)).sample(), own(part, whole))


def test_dropout_is_that_of_the_whole():
    with seeded(0):
        x = torch.randn(9, 50)
        with seeded(1):
            whole = nn.Dropout(0.4)(x)
        for part in parts():
            with seeded(1):
                assert torch.equal(dropout(own(part, x), 0.4, part), own(part, whole))
        assert dropout(x, 0.0, parts()[0]) is x


def norm_like(norm):
    new = nn.BatchNorm1d(norm.num_features, eps=norm.eps, momentum=norm.momentum, dtype=torch.float64)
    new.load_state_dict(norm.state_dict())
    return new


def test_normalisation_and_its_gradients_are_those_of_the_whole():
    with seeded(0):
        norm = nn.BatchNorm1d(5, eps=1e-3, momentum=0.3, dtype=torch.float64)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        x, slope = torch.randn(9, 5, dtype=torch.float64) + 7, torch.randn(9, 5, dtype=torch.float64)

    def work(part, own_norm):
        mine = own(part, x).clone().requires_grad_()
        y = shared_norm(mine, own_norm, part)
        y.backward(own(part, slope))
        return y.detach(), mine.grad

    norms = [norm_like(norm) for _ in EDGES[1:]]
    found = side_by_side([partial(work, *each) for each in zip(parts(), norms, strict=True)])
    whole = x.clone().requires_grad_()
    y = norm(whole)
    y.backward(slope)
    torch.testing.assert_close(torch.cat([f[0] for f in found]), y.detach())
    torch.testing.assert_close(torch.cat([f[1] for f in found]), whole.grad)
    torch.testing.assert_close(sum(n.weight.grad for n in norms), norm.weight.grad)
    torch.testing.assert_close(sum(n.bias.grad for n in norms), norm.bias.grad)
    for one in norms:
        for (name, value), expected in zip(one.named_buffers(), norm.buffers(), strict=True):
            torch.testing.assert_close(value, expected, msg=name)
