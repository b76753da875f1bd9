"""The fit without an encoder where its optimum is known in closed form (U10).

x_n ~ N(W z_n, s^2 I) with z_n ~ N(0, I) and lambda / 2 |W|^2: for any product M = Z W', the least |Z|^2 / 2 +
lambda |W|^2 / 2 is sqrt(lambda) times the sum of the singular values of M, so the optimum is that of X with its
singular values d shrunk to max(d - s^2 sqrt(lambda), 0).
"""

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from modules.small_models import table_of
from torch import nn

from scanpy_scvi.modules import VAE, Dimensions
from scanpy_scvi.modules.decoders import Decoder
from scanpy_scvi.modules.decoders.base import DecoderOutput
from scanpy_scvi.modules.encoders import FreeEncoder
from scanpy_scvi.modules.libraries import ObservedLibrary
from scanpy_scvi.modules.likelihoods import Likelihood
from scanpy_scvi.modules.priors import GaussianMixture, StandardNormal
from scanpy_scvi.training import TrainingConfig, fit, seeded
from scanpy_scvi.training.represent import price, represent

N, G, D = 200, 8, 3
DIMS = Dimensions(n_genes=G)
CPU = torch.device("cpu")
module = sys.modules[represent.__module__]


def dense(cells):
    x = torch.zeros(cells.n_cells, G)
    x[cells.counts.cell_of_entry(), cells.counts.indices.long()] = cells.counts.data
    return x


class LinearDecoder(Decoder):
    n_hidden = D

    def __init__(self, l2):
        super().__init__()
        self.l2 = l2
        self.weight = nn.Parameter(torch.randn(G, D))

    def forward(self, z, cells):
        return DecoderOutput(z @ self.weight.T, z)

    def penalty(self):
        return 0.5 * self.l2 * self.weight.square().sum()

    def set_log_means(self, log_means):
        raise NotImplementedError


class Gaussian(Likelihood):
    def __init__(self, noise):
        super().__init__()
        self.noise = noise

    def nll(self, output, log_library, cells):
        squares = (dense(cells) - output.params).square().sum(1)
        return squares / (2 * self.noise) + 0.5 * G * math.log(2 * math.pi * self.noise)

    def sample(self, output, log_library, cells):
        raise NotImplementedError

    def log_theta(self, output, cells):
        return None


def data(seed=0, n=N):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, G)) @ np.diag([3.0, 2.0, 1.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    with np.errstate(invalid="ignore"):  # the log of a total that means nothing here
        return table_of(x, DIMS), x


def model_of(noise, l2, prior=None):
    with seeded(0):
        encoder = FreeEncoder(DIMS, n_latent=D, n_cells=N)
        prior = prior or StandardNormal(DIMS)
        return VAE(encoder, ObservedLibrary(DIMS), LinearDecoder(l2), Gaussian(noise), prior)


CONFIG = TrainingConfig(
    max_epochs=1500,
    batch_size=N,
    validation_size=0.0,
    early_stopping=False,
    start_from_data=False,
    keep_best=False,
    mixed_precision=False,
    adam_eps=1e-6,
)


@pytest.mark.parametrize(("noise", "l2", "max_epochs"), [(1.0, 4.0, 900), (0.5, 100.0, 700), (1.0, 900.0, 1500)])
def test_the_fit_shrinks_singular_values_softly(noise, l2, max_epochs):
    """Epochs are what each case takes to be well within the tolerance."""
    table, x = data()
    model = model_of(noise, l2)
    fit(model, table, replace(CONFIG, max_epochs=max_epochs))
    found = (model.encoder.z @ model.decoder.weight.T).detach().double().numpy()
    u, d, v = np.linalg.svd(x, full_matrices=False)
    kept = np.maximum(d[:D] - noise * math.sqrt(l2), 0)
    np.testing.assert_allclose(np.linalg.svd(found)[1][:D], kept, atol=2e-3 * d[0])
    np.testing.assert_allclose(found, (u[:, :D] * kept) @ v[:D], atol=0.02)
    size = model.decoder.weight.detach().square().sum().item()
    np.testing.assert_allclose(size, kept.sum() / math.sqrt(l2), rtol=0.01, atol=1e-2)


def test_without_decay_the_weights_have_no_end():
    """The fit of c W and Z / c is the same, and Z / c costs less the larger c is: nothing stops the weights."""
    (table, _), model, squares = data(), model_of(1.0, 0.0), []
    config = replace(CONFIG, max_epochs=900)
    fit(model, table, config, on_epoch=lambda _: squares.append(model.decoder.weight.detach().square().sum().item()))
    growth = np.diff(np.array(squares)[[199, 399, 599]])
    assert (growth > 15).all()  # |W|^2 grows by the same, again and again; with decay it ends at 40
    prices = []
    with torch.no_grad():
        for _ in range(4):
            prices.append(model(table.take(np.arange(N))).loss().sum().item())
            model.decoder.weight.mul_(2)
            model.encoder.z.div_(2)
    assert (np.diff(prices) < 0).all()


def test_a_new_cell_is_ridge_regression(monkeypatch):
    noise, (table, x) = 0.7, data(1, 40)
    model = model_of(noise, 1.0)
    w = model.decoder.weight.detach().double().numpy()
    ridge = x @ w @ np.linalg.inv(w.T @ w + noise * np.eye(D))
    cells = table.take(np.arange(40))
    with torch.no_grad():
        least = price(model, cells, torch.tensor(ridge, dtype=torch.float32))
        quick = price(model, cells, represent(model, table, np.arange(40), device=CPU))
    assert -1e-3 < (quick - least).min() <= (quick - least).max() < 0.01  # nats
    monkeypatch.setattr(module, "STEPS", 1000)
    np.testing.assert_allclose(represent(model, table, np.arange(40), device=CPU), ridge, atol=2e-3)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_with_components_the_best_of_all_starts_is_found():
    """Two narrow components, in one dimension of z: near either of them there is a local optimum."""
    prior = GaussianMixture(DIMS, n_latent=D, n_components=2)
    with torch.no_grad():
        prior.means.copy_(torch.tensor([[4.0, 0.0, 0.0], [-4.0, 0.0, 0.0]]))
        prior.log_sd.fill_(math.log(0.2))
    model = model_of(4.0, 1.0, prior)
    table, x = data(2, 60)
    w, pull = model.decoder.weight.detach().double().numpy(), np.eye(D) / 0.2**2
    places, prices = [], []
    for mean in prior.means.detach().double().numpy():
        z = (x @ w / 4.0 + pull @ mean) @ np.linalg.inv(w.T @ w / 4.0 + pull)
        places.append(z)
        prices.append(((x - z @ w.T) ** 2).sum(1) / 8.0 + ((z - mean) ** 2).sum(1) / (2 * 0.2**2))
    best = np.where((prices[0] < prices[1])[:, None], *places)
    found = represent(model, table, np.arange(60), device=CPU).numpy()
    assert 5 < (prices[0] < prices[1]).sum() < 55  # or there would be nothing to choose
    np.testing.assert_allclose(found, best, atol=1e-2)


def test_where_cells_lie_in_a_table_does_not_matter():
    table, _ = data()
    model = model_of(1.0, 4.0)
    whole = represent(model, table, np.arange(N), device=CPU)
    some = represent(model, table, np.array([150, 3]), device=CPU)
    torch.testing.assert_close(some, whole[[150, 3]], rtol=1e-4, atol=1e-4)
