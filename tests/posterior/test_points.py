"""What is asked of a fit whose encoder gives points: no variance is made up, and none is divided by."""

import numpy as np
import pytest
import torch
from modules.small_models import build, spec, table

from scanpy_scvi.modules.encoders import Encoder, LatentPosterior
from scanpy_scvi.posterior import held_out_bound, latent_moments
from scanpy_scvi.posterior.abundance import BANDWIDTHS, choose_bandwidth, sample_log_densities
from scanpy_scvi.posterior.importance import reweight
from scanpy_scvi.posterior.scales import Draws, draw_scales

CPU = torch.device("cpu")
CELLS = table(30)


class Points(Encoder):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, cells):
        return LatentPosterior(self.inner(cells).mean, None)


@pytest.fixture
def model():
    model = build(spec())
    model.encoder = Points(model.encoder)
    return model.eval()


def test_moments_have_no_variance_and_a_spread_of_zero(model):
    found = latent_moments(model, CELLS, device=CPU)
    assert found.var is None
    assert found.spread().shape == found.mean.shape
    assert not found.spread().any()


def test_the_bound_is_the_joint_density_whatever_the_number_of_draws(model):
    one, many = (held_out_bound(model, CELLS, n_samples=n, device=CPU) for n in (1, 7))
    np.testing.assert_array_equal(one.elbo, many.log_likelihood)
    cells = CELLS.take(np.arange(30))
    z = model.encode(cells).mean
    joint = model.prior.log_prob(z, cells) - model.likelihood.nll(model.decode(z, cells), cells.log_total, cells)
    np.testing.assert_allclose(one.elbo, joint.detach().numpy(), rtol=1e-5)


def test_draws_of_the_proportions_are_those_at_the_points(model):
    draws = Draws(np.array([3, 3, 7]), None)
    rho = draw_scales(model, CELLS, draws, random_state=0, device=CPU)
    np.testing.assert_array_equal(rho[:, 0], rho[:, 1])
    assert (rho[:, 0] != rho[:, 2]).any()


def test_there_is_nothing_to_weight(model):
    with pytest.raises(ValueError, match="without a variance"):
        reweight(model, CELLS, Draws(np.arange(5), None), random_state=0, device=CPU)


def test_densities_of_points_have_a_bandwidth(model):
    found = latent_moments(model, CELLS, device=CPU)
    codes = np.arange(30) % 2
    bandwidth = choose_bandwidth(found.mean, found.spread(), codes)
    assert bandwidth in BANDWIDTHS[1:]
    density = sample_log_densities(found.mean, found.spread(), codes, max_cells=30, bandwidth=bandwidth, random_state=0)
    assert np.isfinite(density).all()
