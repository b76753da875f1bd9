"""No prior: a point costs nothing, a normal posterior its negative entropy."""

import numpy as np
import torch
from scipy import stats

from scanpy_scvi.modules.encoders.base import LatentPosterior
from scanpy_scvi.modules.priors import FlatPrior


def test_prices():
    mean, var = torch.tensor([[0.3, -1.0], [2.0, 5.0]]), torch.tensor([[0.5, 2.0], [1.0, 0.1]])
    prior = FlatPrior(None)
    assert torch.equal(prior.kl(LatentPosterior(mean, None), mean, None), torch.zeros(2))
    assert torch.equal(prior.log_prob(mean, None), torch.zeros(2))
    expected = -stats.norm.entropy(mean.numpy(), np.sqrt(var.numpy())).sum(1)
    np.testing.assert_allclose(prior.kl(LatentPosterior(mean, var), mean, None).numpy(), expected, rtol=1e-5)
