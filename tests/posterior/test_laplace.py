"""The normal about the mode is the posterior itself where decoder and noise are linear and normal."""

import math

import numpy as np
import pytest
import torch
from modules.small_models import NETWORK, build, spec, table, table_of
from scipy import stats
from torch import nn

from scanpy_scvi.modules import VAE, Dimensions, Part
from scanpy_scvi.modules.decoders import Decoder
from scanpy_scvi.modules.decoders.base import DecoderOutput
from scanpy_scvi.modules.encoders import FreeEncoder
from scanpy_scvi.modules.libraries import ObservedLibrary
from scanpy_scvi.modules.likelihoods import Likelihood
from scanpy_scvi.modules.priors import StandardNormal
from scanpy_scvi.posterior import held_out_bound
from scanpy_scvi.posterior.laplace import LEAST_PRECISION, Laplace, laplace
from scanpy_scvi.training import seeded
from scanpy_scvi.training.represent import represent

N, G, D, NOISE = 50, 6, 3, 0.5
DIMS = Dimensions(n_genes=G)
CPU = torch.device("cpu")


class LinearDecoder(Decoder):
    n_hidden = D

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(G, D))

    def forward(self, z, cells):
        return DecoderOutput(z @ self.weight.T, z)

    def set_log_means(self, log_means):
        raise NotImplementedError


class Gaussian(Likelihood):
    def nll(self, output, log_library, cells):
        x = torch.zeros(cells.n_cells, G)
        x[cells.counts.cell_of_entry(), cells.counts.indices.long()] = cells.counts.data
        return (x - output.params).square().sum(1) / (2 * NOISE) + 0.5 * G * math.log(2 * math.pi * NOISE)

    def sample(self, output, log_library, cells):
        raise NotImplementedError

    def log_theta(self, output, cells):
        return None


@pytest.fixture(scope="module")
def linear():
    with seeded(0):
        model = VAE(
            FreeEncoder(DIMS, n_latent=D, n_cells=N),
            ObservedLibrary(DIMS),
            LinearDecoder(),
            Gaussian(),
            StandardNormal(DIMS),
        ).eval()
    w = model.decoder.weight.detach().double().numpy()
    x = np.random.default_rng(0).normal(size=(N, G)) * 2
    with np.errstate(invalid="ignore"):  # the log of a total that means nothing here
        data = table_of(x, DIMS)
    precision = w.T @ w / NOISE + np.eye(D)
    with torch.no_grad():
        model.encoder.z.copy_(torch.from_numpy(x @ w / NOISE @ np.linalg.inv(precision)))
    return model, data, x, precision


def test_its_covariance_is_the_exact_one(linear):
    model, data, _, precision = linear
    q = laplace(model, data.take(np.arange(N)), model.encoder.z.detach())
    found = (q.directions * q.precision[:, None]) @ q.directions.mT
    np.testing.assert_allclose(found.numpy(), np.broadcast_to(precision, (N, D, D)), rtol=0.02, atol=0.02)


def test_every_weight_is_then_the_likelihood(linear):
    model, data, x, _ = linear
    w = model.decoder.weight.detach().double().numpy()
    exact = stats.multivariate_normal(np.zeros(G), w @ w.T + NOISE * np.eye(G)).logpdf(x)
    found = held_out_bound(model, data, n_samples=50, device=CPU)
    np.testing.assert_allclose(found.log_likelihood, exact, atol=5e-3)
    np.testing.assert_allclose(found.elbo, exact, atol=5e-3)


def test_draws_and_density_are_those_of_scipy():
    with seeded(0):
        h = torch.randn(1, D, 8)
        precision, directions = torch.linalg.eigh(h @ h.mT)
        n = 20_000
        q = Laplace(torch.ones(n, D), directions.expand(n, D, D), precision.expand(n, D))
        z = q.sample()
    covariance = np.linalg.inv((h @ h.mT)[0].double().numpy())
    by_scipy = stats.multivariate_normal(np.ones(D), covariance)
    np.testing.assert_allclose(q.log_prob(z), by_scipy.logpdf(z.numpy()), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(np.cov(z.numpy().T), covariance, atol=0.05 * np.abs(covariance).max())


def test_counts_about_their_modes(linear):
    """The estimate rises with the draws, towards the likelihood; and a mode costs less than what is near it."""
    parts = {
        "encoder": Part("free", {"n_latent": 3, "n_cells": 40}),
        "decoder": Part("mlp", {**NETWORK, "norm": "none"}),
    }
    model, data = build(spec(**parts)), table(40)
    with torch.no_grad():
        model.encoder.z.copy_(represent(model, data, np.arange(40), device=CPU))
    few, many = (held_out_bound(model, data, n_samples=k, device=CPU) for k in (5, 300))
    assert np.isfinite(many.log_likelihood).all()
    assert (many.log_likelihood - many.elbo > -1e-6).all()
    assert many.log_likelihood.mean() >= few.log_likelihood.mean() - 0.01
    assert (many.log_likelihood - many.elbo).mean() < 0.2  # q is nearly the posterior
    q = laplace(model, data.take(np.arange(40)), model.encoder.z.detach())
    assert (q.precision >= LEAST_PRECISION).all()
