"""The importance-weighted estimate on a model whose likelihood is known in closed form (U4).

z ~ N(0, 1), x | z ~ N(w z, s^2 I) with w = (1, 2): p(x) = N(0, w w' + s^2 I), p(z | x) = N(w'x / (5 + s^2),
s^2 / (5 + s^2)). Shi 2021, arXiv 2101.00650, eqs. 33-54. The parts are those of any model, so what is tested is the
code that scores counts.
"""

import math

import numpy as np
import pytest
import torch
from modules.small_models import table_of
from scipy import stats

from scanpy_scvi.modules import VAE, Dimensions
from scanpy_scvi.modules.decoders import Decoder
from scanpy_scvi.modules.decoders.base import DecoderOutput
from scanpy_scvi.modules.encoders import Encoder
from scanpy_scvi.modules.encoders.base import LatentPosterior
from scanpy_scvi.modules.libraries import ObservedLibrary
from scanpy_scvi.modules.likelihoods import Likelihood
from scanpy_scvi.modules.priors import StandardNormal
from scanpy_scvi.posterior import held_out_bound

W = torch.tensor([1.0, 2.0])
DIMS = Dimensions(n_genes=2)
CPU = torch.device("cpu")


def dense(cells):
    x = torch.zeros(cells.n_cells, 2)
    x[cells.counts.cell_of_entry(), cells.counts.indices.long()] = cells.counts.data
    return x


class ExactEncoder(Encoder):
    """The exact posterior; or, with another `stretch`, one with so many times its variance."""

    def __init__(self, noise, stretch=1.0):
        super().__init__()
        self.noise, self.stretch = noise, stretch

    def forward(self, cells):
        total = 5 + self.noise
        mean = (dense(cells) @ W / total)[:, None]
        return LatentPosterior(mean, torch.full_like(mean, self.stretch * self.noise / total))


class LinearDecoder(Decoder):
    n_hidden = 1

    def forward(self, z, cells):
        return DecoderOutput(z * W, z)

    def set_log_means(self, log_means):
        raise NotImplementedError


class Gaussian(Likelihood):
    def __init__(self, noise):
        super().__init__()
        self.noise = noise

    def nll(self, output, log_library, cells):
        squares = (dense(cells) - output.params).square().sum(1)
        return squares / (2 * self.noise) + math.log(2 * math.pi * self.noise)

    def sample(self, output, log_library, cells):
        return output.params + math.sqrt(self.noise) * torch.randn_like(output.params)

    def log_theta(self, output, cells):
        return None


def toy(noise, stretch=1.0):
    return VAE(
        ExactEncoder(noise, stretch), ObservedLibrary(DIMS), LinearDecoder(), Gaussian(noise), StandardNormal(DIMS)
    )


def data(noise, n=400):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 1)) * W.numpy() + math.sqrt(noise) * rng.normal(size=(n, 2))
    with np.errstate(invalid="ignore"):  # the log of a total that means nothing here
        return table_of(x, DIMS), x.astype(np.float32).astype(float)


def exact(x, noise):
    covariance = np.outer(W, W) + noise * np.eye(2)
    return stats.multivariate_normal(np.zeros(2), covariance).logpdf(x)


@pytest.mark.parametrize("noise", [1.0, 0.25])
@pytest.mark.parametrize("n_samples", [1, 7])
def test_with_the_exact_posterior_every_weight_is_the_likelihood(noise, n_samples):
    table, x = data(noise)
    found = held_out_bound(toy(noise), table, n_samples=n_samples, device=CPU)
    np.testing.assert_allclose(found.log_likelihood, exact(x, noise), atol=2e-5)
    np.testing.assert_allclose(found.elbo, exact(x, noise), atol=2e-5)


@pytest.mark.parametrize(("noise", "nats"), [(1.0, 3.73376), (0.25, 2.97384)])
def test_its_mean_is_minus_the_entropy(noise, nats):
    table, _ = data(noise, 40_000)
    found = -held_out_bound(toy(noise), table, n_samples=1, device=CPU).log_likelihood
    assert abs(found.mean() - nats) < 4 * found.std() / 200  # a standard error is std / sqrt(40,000)


@pytest.mark.parametrize("noise", [1.0, 0.25])
def test_with_too_broad_a_proposal_it_converges(noise):
    table, x = data(noise)
    wide = toy(noise, stretch=3.0)
    errors = []
    for n_samples in (1, 30, 3000):
        found = held_out_bound(wide, table, n_samples=n_samples, device=CPU)
        errors.append(np.abs(found.log_likelihood - exact(x, noise)).mean())
    assert errors[0] > 10 * errors[2]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02
    gap = (exact(x, noise) - found.elbo).mean()  # of the bound: KL(q || p(z | x))
    assert abs(gap - 0.5 * (3 - 1 - math.log(3))) < 0.02
