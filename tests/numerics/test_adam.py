"""Adam's fused step against torch's, against float64, and at the edges of its arguments."""

import numpy as np
import pytest
import torch

from scanpy_scvi.numerics.adam import adam_step

N = 1003
OPTIONS = {"learning_rate": 3e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-4, "weight_decay": 0.02}


def gradients(steps=20, seed=0, n=N):
    """Gradients whose sizes span six orders, some of them exactly zero throughout."""
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.uniform(-7, 7, n))
    scale[::50] = 0
    return (rng.normal(size=(steps, n)) * scale).astype(np.float32)


def start(seed=1, n=N, kind=np.float32):
    weights = np.random.default_rng(seed).normal(size=n).astype(np.float32).astype(kind)
    return weights, np.zeros(n, kind), np.zeros(n, kind), weights.copy()


def twin(weights, grads, share, *, learning_rate, beta1, beta2, eps, weight_decay):
    """The formula in float64."""
    w, m, v, a = (x.astype(float) for x in (weights, np.zeros(N), np.zeros(N), weights))
    for t, g in enumerate(grads.astype(float), 1):
        g = g + weight_decay * w
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        w = w - learning_rate / (1 - beta1**t) * m / (np.sqrt(v) / np.sqrt(1 - beta2**t) + eps)
        a = a + share * (w - a)
    return w, m, v, a


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 0.02])
def test_twenty_steps_equal_torch(fused, weight_decay):
    weights, m, v, average = start()
    grads = gradients()
    parameter = torch.nn.Parameter(torch.from_numpy(weights.copy()))
    optimizer = torch.optim.Adam(
        [parameter], lr=3e-3, betas=(0.9, 0.999), eps=1e-4, weight_decay=weight_decay, fused=fused
    )
    mean = parameter.detach().clone()
    options = OPTIONS | {"weight_decay": weight_decay}
    for t, g in enumerate(grads, 1):
        adam_step(weights, g, m, v, average, step=t, average_weight=0.1, **options)
        parameter.grad = torch.from_numpy(g)
        optimizer.step()
        mean.lerp_(parameter.detach(), 0.1)
    state = optimizer.state[parameter]
    # A step is at most 3e-3, so that float32 rounding of 20 of them stays below 1e-7 beside that of the weights.
    np.testing.assert_allclose(weights, parameter.detach().numpy(), rtol=3e-7, atol=1e-7)
    np.testing.assert_allclose(average, mean.numpy(), rtol=3e-7, atol=1e-7)
    # Moments of alternating signs cancel: hold them to the size of their gradient.
    size = np.abs(grads).max(0) + 0.02
    assert (np.abs(m - state["exp_avg"].numpy()) <= 5e-7 * size).all()
    np.testing.assert_allclose(v, state["exp_avg_sq"].numpy(), rtol=3e-6, atol=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_twenty_steps_equal_the_formula(share):
    weights, m, v, average = start()
    grads = gradients(seed=2)
    want = twin(weights, grads, share, **OPTIONS)
    for t, g in enumerate(grads, 1):
        adam_step(weights, g, m, v, average, step=t, average_weight=share, **OPTIONS)
    for got, expected in zip((weights, average), (want[0], want[3]), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=3e-7)
    assert (np.abs(m - want[1]) <= 1e-6 * (np.abs(grads).max(0) + 0.02)).all()
    np.testing.assert_allclose(v, want[2], rtol=3e-6, atol=1e-12)


def test_bits_do_not_depend_on_where_the_arrays_lie():
    """Vectors, the loop's end and the weights before the first boundary of 64 bytes must round alike."""
    seen = set()
    for offset in range(17):
        moved = []
        for array in (start(n=117)[0], gradients(1, n=117)[0], *start(seed=3, n=117)[:1] * 3):
            memory = np.zeros(117 + 64, np.float32)
            memory[offset : offset + 117] = np.abs(array) if len(moved) == 3 else array
            moved.append(memory[offset : offset + 117])
        adam_step(*moved, step=3, average_weight=0.1, **OPTIONS)
        seen.add(b"".join(array.tobytes() for array in moved))
    assert len(seen) == 1


def test_without_average_weight_the_average_stays_and_the_weights_are_the_same():
    (w, m, v, average), (w2, m2, v2, average2), before = start(), start(), start()[3]
    for t, g in enumerate(gradients(3), 1):
        adam_step(w, g, m, v, average, step=t, **OPTIONS)
        adam_step(w2, g, m2, v2, average2, step=t, average_weight=0.5, **OPTIONS)
    np.testing.assert_array_equal(average, before)
    np.testing.assert_array_equal(w, w2)
    adam_step(w, g, m, v, learning_rate=0.1, step=4)


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_nan_passes_on(share):
    w, m, v, average = start()
    g = gradients(1)[0]
    g[17], g[18] = np.nan, np.inf
    adam_step(w, g, m, v, average, step=1, average_weight=share, **OPTIONS)
    assert np.flatnonzero(~np.isfinite(w)).tolist() == [17, 18]
    assert np.isnan(m[17])
    assert np.isnan(average[17]) == (share > 0)


def test_empty_arrays_are_allowed():
    empty = [np.zeros(0, np.float32) for _ in range(4)]
    adam_step(*empty, learning_rate=1.0, step=1)


def test_arguments_are_checked():
    w, m, v, average = start()
    g = gradients(1)[0]
    with pytest.raises(ValueError, match=r"`gradient` is float64 of shape \(1003,\)"):
        adam_step(w, g.astype(float), m, v, step=1, **OPTIONS)
    with pytest.raises(ValueError, match=r"`first` is float32 of shape \(1002,\)"):
        adam_step(w, g, m[1:], v, step=1, **OPTIONS)
    with pytest.raises(ValueError, match="not contiguous"):
        adam_step(w, g, m, np.zeros(2 * N, np.float32)[::2], step=1, **OPTIONS)
    with pytest.raises(ValueError, match="steps are counted from 1"):
        adam_step(w, g, m, v, step=0, **OPTIONS)
    with pytest.raises(ValueError, match="no `average` was given"):
        adam_step(w, g, m, v, step=1, average_weight=0.1, **OPTIONS)
    with pytest.raises(ValueError, match="it is a share"):
        adam_step(w, g, m, v, average, step=1, average_weight=1.5, **OPTIONS)
    with pytest.raises(ValueError, match="both must be from 0 to below 1"):
        adam_step(w, g, m, v, learning_rate=0.1, beta2=1.0, step=1)
