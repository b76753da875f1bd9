import math

import torch
from modules.small_models import PLAIN, all_cells, table
from torch.distributions import Normal, kl_divergence

from scanpy_scvi.modules.encoders import LatentPosterior
from scanpy_scvi.modules.priors import StandardNormal
from scanpy_scvi.training import seeded

CELLS = all_cells(table(6))
PRIOR = StandardNormal(PLAIN)


def posterior(seed=0):
    with seeded(seed):
        return LatentPosterior(torch.randn(6, 4), torch.rand(6, 4) * 3 + 1e-4)


def test_kl_is_that_of_torch():
    q = posterior()
    expected = kl_divergence(Normal(q.mean, q.var.sqrt()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(PRIOR.kl(q, q.sample(), CELLS), expected)


def test_kl_is_the_mean_log_ratio_of_draws():
    """With the prior's own log density, which importance weights use."""
    q = posterior()
    normal = Normal(q.mean, q.var.sqrt())
    with seeded(1):
        draws = normal.sample((20_000,))
    log_p = PRIOR.log_prob(draws.flatten(0, 1), CELLS).reshape(len(draws), 6)
    ratios = normal.log_prob(draws).sum(2) - log_p
    error = 4 * ratios.std(0) / math.sqrt(len(ratios))
    assert ((ratios.mean(0) - PRIOR.kl(q, q.mean, CELLS)).abs() < error).all()


def test_kl_is_zero_at_the_prior_alone():
    at = LatentPosterior(torch.zeros(6, 4), torch.ones(6, 4))
    assert torch.equal(PRIOR.kl(at, at.mean, CELLS), torch.zeros(6))
    assert (PRIOR.kl(posterior(), at.mean, CELLS) > 0).all()


def test_log_density_is_that_of_torch():
    z = posterior().mean
    torch.testing.assert_close(PRIOR.log_prob(z, CELLS), Normal(0.0, 1.0).log_prob(z).sum(1))
