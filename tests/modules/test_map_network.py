import numpy as np
import torch

from scanpy_scvi.modules.map_network import CHUNK, MapNetwork, mean_and_scale


def network(n_in=4, n_out=2, **sizes):
    torch.manual_seed(0)
    return MapNetwork(n_in, n_out, **({"n_hidden": 8, "n_layers": 2} | sizes)).eval()


def test_places_follow_the_formula():
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, (50, 4)).astype(np.float32), rng.normal(-1, 5, (50, 2)).astype(np.float32)
    net = network().standardise(x, y)
    h = (x - x.mean(0)) / np.sqrt(x.var(0).mean())
    for block in net.hidden.blocks:
        h = h @ block.linear.weight.detach().numpy().T + block.linear.bias.detach().numpy()
        h = (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + 1e-5)
        h = np.maximum(h, 0)
    out = h @ net.output.weight.detach().numpy().T + net.output.bias.detach().numpy()
    expected = y.mean(0) + np.sqrt(y.var(0).mean()) * out
    np.testing.assert_allclose(net.place(x), expected, rtol=1e-4, atol=1e-4)


def test_one_scale_for_all_columns():
    values = np.array([[0.0, 10.0], [2.0, 10.0], [4.0, 10.0]])
    mean, scale = mean_and_scale(values)
    np.testing.assert_allclose(mean, [2, 10])
    np.testing.assert_allclose(scale, np.sqrt(8 / 3 / 2))
    assert mean_and_scale(np.ones((3, 2)))[1] == 1


def test_cells_are_placed_alike_in_chunks():
    net, x = network(n_in=3), np.random.default_rng(1).normal(size=(CHUNK + 5, 3))
    places = net.place(x)
    assert places.shape == (CHUNK + 5, 2)
    assert places.dtype == np.float32
    np.testing.assert_allclose(places[-5:], net.place(x[-5:]), rtol=1e-5, atol=1e-6)
    assert net.place(x[:0]).shape == (0, 2)


def test_every_weight_gets_a_gradient():
    net = network()
    net(torch.randn(6, 4)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
