import numpy as np
import pytest
import torch
from torch.nn import functional

from scanpy_scvi.numerics.norm_relu_dropout import norm_relu_dropout, norm_relu_dropout_gradient

N, WIDTH, EPS = 53, 37, 1e-3


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    design = np.eye(3, dtype=np.float32)[rng.integers(3, size=N)]
    shapes = {"product": (N, WIDTH), "bias": WIDTH, "offsets": (3, WIDTH), "gamma": WIDTH, "beta": WIDTH}
    made = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return made | {"design": design, "slope": rng.normal(size=(N, WIDTH)).astype(np.float32)}


def run(arrays, *, rate=0.0, seed=0, product=None):
    mean, var = np.zeros(WIDTH, np.float32), np.ones(WIDTH, np.float32)
    product = arrays["product"].copy() if product is None else product
    rest = (arrays[name] for name in ("bias", "design", "offsets", "gamma", "beta"))
    normed = norm_relu_dropout(product, *rest, mean, var, eps=EPS, momentum=0.1, rate=rate, seed=seed)
    return normed, mean, var


def test_forward_and_backward_equal_autograd_in_float64(arrays):
    normed, mean, var = run(arrays)
    t = {name: torch.from_numpy(a).double().requires_grad_() for name, a in arrays.items()}
    a = t["product"] + t["bias"] + t["design"] @ t["offsets"]
    running = torch.zeros(WIDTH, dtype=torch.float64), torch.ones(WIDTH, dtype=torch.float64)
    y = torch.relu(functional.batch_norm(a, *running, t["gamma"], t["beta"], training=True, momentum=0.1, eps=EPS))
    np.testing.assert_allclose(normed.out, y.detach(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mean, running[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(var, running[1], rtol=1e-4, atol=1e-6)
    y.backward(t["slope"].detach())
    gradients = norm_relu_dropout_gradient(arrays["slope"], normed, arrays["design"], arrays["gamma"], rate=0.0)
    for name, got in zip(("product", "offsets", "gamma", "beta"), gradients, strict=True):
        np.testing.assert_allclose(got, t[name].grad, rtol=1e-3, atol=2e-5, err_msg=name)
    assert t["bias"].grad.abs().max() < 1e-10  # the mean takes it away, so nothing is computed for it


def test_dropout_drops_the_asked_share_scales_the_rest_and_depends_on_the_seed(arrays):
    whole = run(arrays)[0].out
    dropped = [run(arrays, rate=0.3, seed=seed)[0].out for seed in (7, 7, 8)]
    assert np.array_equal(dropped[0], dropped[1])
    assert not np.array_equal(dropped[0], dropped[2])
    kept = dropped[0][whole > 0] > 0
    n = kept.size
    assert abs(kept.mean() - 0.7) < 4 * np.sqrt(0.21 / n)
    np.testing.assert_allclose(dropped[0][whole > 0][kept], whole[whole > 0][kept] / 0.7, rtol=1e-5)


def test_masks_are_independent_between_units_cells_and_seeds():
    ones = {"bias": WIDTH, "offsets": (0, WIDTH), "gamma": WIDTH, "beta": WIDTH}
    arrays = {name: np.ones(shape, np.float32) for name, shape in ones.items()}
    arrays |= {"design": np.empty((N, 0), np.float32), "beta": np.full(WIDTH, 99, np.float32)}
    product = np.zeros((N, WIDTH), np.float32)
    masks = np.array([run(arrays, rate=0.5, seed=s, product=product.copy())[0].out > 0 for s in range(200)], float)
    assert abs(masks.mean() - 0.5) < 4 * 0.5 / np.sqrt(masks.size)
    flat = masks.reshape(200, -1)[:, ::7]
    between_units = np.corrcoef(flat.T)[np.triu_indices(flat.shape[1], 1)]
    assert abs(between_units).max() < 0.45  # of 38,000 pairs; 1/sqrt(200) = 0.07 each
    assert abs(between_units.mean()) < 2e-3
    between_seeds = np.corrcoef(flat)[np.triu_indices(200, 1)]
    assert abs(between_seeds).max() < 0.35


def test_gradient_passes_only_where_the_unit_was_kept(arrays):
    normed = run(arrays, rate=0.4, seed=1)[0]
    gradients = norm_relu_dropout_gradient(arrays["slope"], normed, arrays["design"], arrays["gamma"], rate=0.4)
    gate = (normed.out > 0) / 0.6
    np.testing.assert_allclose(gradients[3], (arrays["slope"] * gate).sum(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_shows(bad, arrays):
    arrays["product"][3, 4] = bad
    assert not np.isfinite(run(arrays)[0].out[:, 4]).all()
