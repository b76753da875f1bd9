"""Autoencoders whose optimum is known in closed form (U1 to U5; U6 to U9 lie with their parts).

Toy data y enter as counts exp(y) - 1 of cells with a total of one, so that log(1 + T x / l) with T = 1 is y. Weights
are found by minimising what a fit minimises: the model's own loss, with the price of its weights. Shi 2021, arXiv
2101.00650, eqs. 1-54; Kunin et al. 2019, arXiv 1901.08168; Lucas et al. 2019, arXiv 1911.02469.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from modules.small_models import all_cells, build, spec, table_of
from scipy.optimize import minimize

from scanpy_scvi.modules import Dimensions, Part
from scanpy_scvi.training import TrainingConfig, fit, seeded

W = np.array([1.0, 2.0])
NINE = np.outer([-1.5, -0.5, -0.2, -0.1, 0, 0.1, 0.2, 0.5, 1], W)


def toy_table(y):
    with np.errstate(invalid="ignore", divide="ignore"):  # the log of a total that is replaced
        data = table_of(np.expm1(y), Dimensions(n_genes=y.shape[1]))
    zero = np.zeros(len(y), np.float32)
    return replace(data, log_total=zero, log_size_factor=zero)


def linear_model(n_genes, n_latent, *, l2=0.0, noise=1.0, variational=False, seed=0):
    encoder = {"n_latent": n_latent, "deterministic": not variational, "input_total": 1.0, "l2": l2}
    decoder = {"n_latent": n_latent, "loadings_sd": 1 / math.sqrt(l2) if l2 else None}
    return build(
        spec(
            Dimensions(n_genes=n_genes),
            encoder=Part("linear", encoder),
            decoder=Part("linear", decoder),
            likelihood=Part("gaussian", {"total": 1.0, "sd": math.sqrt(noise)}),
            prior=Part("normal" if variational else "flat"),
        ),
        seed=seed,
    )


def least_loss(model, y):
    """Minimise loss and price over the weights, in float64, without biases; return both maps, and the loss reached."""
    cells, model = all_cells(toy_table(y)), model.double()
    free = []
    for linear in (model.encoder.mean, model.decoder.logits):
        linear.bias.requires_grad_(requires_grad=False).zero_()
        free.append(linear.weight)
    if model.encoder.log_var is not None:
        free.append(model.encoder.log_var)
    sizes = np.cumsum([p.numel() for p in free])[:-1]

    def loss(values):
        with torch.no_grad():
            for p, part in zip(free, np.split(values, sizes), strict=True):
                p.copy_(torch.from_numpy(part).reshape(p.shape))
        price = model.weight_penalty()
        value = model(cells).loss().mean() + (0 if price is None else price / len(y))
        gradient = torch.autograd.grad(value, free)
        return value.item(), np.concatenate([g.reshape(-1).numpy() for g in gradient])

    start = np.concatenate([p.detach().reshape(-1).numpy() for p in free])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-16, "gtol": 1e-10, "maxiter": 5000})
    loss(found.x)
    a, b = (linear.weight.detach().numpy() for linear in (model.encoder.mean, model.decoder.logits))
    return model.encoder.gain * a, b, found.fun


def squared_error(loss, n_genes):
    """(1/n) sum |x - x_hat|^2 + l2/n (|A|^2 + |B|^2) of the loss at unit noise."""
    return 2 * (loss - 0.5 * n_genes * math.log(2 * math.pi))


@pytest.mark.parametrize(
    ("y", "strength", "expected", "least"),
    [(np.array([W, -W]), 0.5, (0.42426, 0.84853), 0.95), (NINE, 0.1, (0.43663, 0.87327), None)],
    ids=["covariance", "nine points"],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_toy_autoencoder(y, strength, expected, least, seed):
    """U1: a = b = ±t (1, 2) / sqrt(5) with t^2 = 1 - lambda / trace S."""
    a, b, loss = least_loss(linear_model(2, 1, l2=strength * len(y), seed=seed), y)
    np.testing.assert_allclose(a[0], b[:, 0], atol=1e-6)
    np.testing.assert_allclose(b[:, 0] * np.sign(b[0, 0]), expected, atol=1e-5)
    if least is not None:
        assert squared_error(loss, 2) == pytest.approx(least, abs=1e-6)


def test_a_strong_price_leaves_nothing():
    """U1: with lambda above trace S the optimum is zero."""
    a, b, _ = least_loss(linear_model(2, 1, l2=2 * 5.5), np.array([W, -W]))
    np.testing.assert_allclose(np.r_[a[0], b[:, 0]], 0, atol=1e-4)


EIGENVALUES, UNIT = np.array([9.0, 6.0, 4.0, 2.0, 1.0]), 0.1
AXES = np.linalg.qr(np.random.default_rng(3).normal(size=(5, 5)))[0]
FIVE = np.concatenate([sign * UNIT * np.sqrt(5 * EIGENVALUES)[:, None] * AXES.T for sign in (1, -1)])
"""Ten points with the second moment AXES diag(EIGENVALUES) AXES', in units that float32 takes well."""


def test_a_priced_linear_autoencoder_shrinks_principal_directions():
    """U2: s_i^2 = 1 - lambda / ev_i, A = B'."""
    a, b, _ = least_loss(linear_model(5, 3, l2=0.5 * UNIT**2 * len(FIVE)), FIVE)
    np.testing.assert_allclose(a, b.T, atol=2e-6)
    u, s, _ = np.linalg.svd(b, full_matrices=False)
    np.testing.assert_allclose(s**2, [0.94444, 0.91667, 0.87500], atol=1e-5)
    np.testing.assert_allclose(np.abs((u * AXES[:, :3]).sum(0)), 1, atol=1e-6)


def test_without_a_price_the_subspace_is_that_of_pca():
    """U3: B A is the projector on the first principal components."""
    a, b, loss = least_loss(linear_model(5, 3), FIVE)
    np.testing.assert_allclose(b @ a, AXES[:, :3] @ AXES[:, :3].T, atol=1e-5)
    assert squared_error(loss, 5) == pytest.approx(UNIT**2 * EIGENVALUES[3:].sum(), rel=1e-6)


@pytest.fixture
def opposite_draws(monkeypatch):
    """The first half of a minibatch draws z one standard deviation above its mean, the second as far below.

    With the same cells in both halves the mean of a quadratic loss over them is its expectation.
    """
    signs = {}

    def draw(like):
        n = len(like)
        signs["n"] = n
        return torch.tensor([1.0, -1.0], dtype=like.dtype).repeat_interleave(n // 2)[:, None].expand_as(like)

    monkeypatch.setattr(torch, "randn_like", draw)
    return signs


def four_points(noise):
    """Twice four points whose second moment is w w' + noise."""
    factor = np.linalg.cholesky(np.outer(W, W) + noise * np.eye(2)) * math.sqrt(2)
    return np.tile(np.concatenate([factor.T, -factor.T]), (2, 1))


@pytest.mark.parametrize(("noise", "nats", "error"), [(1.0, 3.73376, 0.8333), (0.25, 2.97384, 0.2381)])
def test_a_linear_variational_autoencoder_reaches_the_entropy_of_its_data(noise, nats, error, opposite_draws):
    """U4: b = ±w, a = b / (5 + s^2), posterior variance s^2 / (5 + s^2). U5: what it denoises to."""
    model = linear_model(2, 1, noise=noise, variational=True)
    a, b, loss = least_loss(model, four_points(noise))
    assert opposite_draws["n"] == 8
    assert loss == pytest.approx(nats, abs=1e-5)
    np.testing.assert_allclose(b[:, 0] * np.sign(b[0, 0]), W, atol=1e-4)
    np.testing.assert_allclose(a[0], b[:, 0] / (5 + noise), atol=1e-5)
    assert model.encoder.log_var.exp().item() == pytest.approx(noise / (5 + noise), abs=1e-5)
    rng = np.random.default_rng(0)
    clean = np.outer(rng.normal(size=20_000), W)
    noisy = clean + math.sqrt(noise) * rng.normal(size=clean.shape)
    with torch.no_grad():
        cells = all_cells(toy_table(noisy))
        denoised = model.decode(model.encode(cells).mean, cells).params.numpy()
    squares = ((denoised - clean) ** 2).sum(1)
    assert abs(squares.mean() - error) < 4 * squares.std() / math.sqrt(len(squares))
    assert abs(((b @ a - np.eye(2)) @ W) @ ((b @ a - np.eye(2)) @ W) + noise * ((b @ a) ** 2).sum() - error) < 1e-4
    assert ((noisy - clean) ** 2).sum(1).mean() == pytest.approx(2 * noise, rel=0.03)


def test_a_fit_reaches_it_too(monkeypatch):
    """U4, by the training loop: minibatches, one draw of z for each cell, moving averages."""
    rng = np.random.default_rng(0)
    y = np.outer(rng.normal(size=4000), W) + rng.normal(size=(4000, 2))
    data, model = toy_table(y), linear_model(2, 1, variational=True)
    config = TrainingConfig(
        max_epochs=60, learning_rate=3e-3, validation_size=0.0, early_stopping=False, mixed_precision=False
    )
    with seeded(0):
        found = fit(model, data, config)
    cells = all_cells(data)
    with torch.no_grad():
        posterior = model.encode(cells)
        losses = []
        for sign in (1.0, -1.0):
            monkeypatch.setattr(torch, "randn_like", lambda like, sign=sign: torch.full_like(like, sign))
            losses.append(model(cells).loss().mean().item())
    covariance = np.cov(y.T, bias=True)
    top, axes = np.linalg.eigh(covariance)
    best = (top[1] - 1) * np.outer(axes[:, 1], axes[:, 1]) + np.eye(2)  # of probabilistic PCA with unit noise
    exact = 0.5 * (2 * math.log(2 * math.pi) + np.linalg.slogdet(best)[1] + np.trace(np.linalg.solve(best, covariance)))
    assert exact - 1e-4 < np.mean(losses) < exact + 2e-3
    assert posterior.var[0].item() == pytest.approx(1 / 6, abs=0.01)
    b = model.decoder.logits.weight.detach().double().numpy()
    np.testing.assert_allclose(b @ b.T + np.eye(2), best, atol=0.1)
    assert found.convergence.n_active == 1
