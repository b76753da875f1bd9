import torch
from modules.small_models import PLAIN, all_cells, table
from torch.distributions import Normal

from scanpy_scvi.modules.encoders import LatentPosterior
from scanpy_scvi.modules.priors import StandardNormal
from scanpy_scvi.training import seeded

MEAN = torch.tensor([[0.5, -1.0], [2.0, 0.0]])


def test_log_density_is_that_of_torch():
    q = LatentPosterior(MEAN, torch.tensor([[0.1, 2.0], [1.0, 1e-4]]))
    with seeded(0):
        z = q.sample()
    torch.testing.assert_close(q.log_prob(z), Normal(q.mean, q.var.sqrt()).log_prob(z).sum(1))


def test_a_point_is_its_only_draw_and_costs_what_the_prior_says():
    point = LatentPosterior(MEAN, None)
    state = torch.get_rng_state()
    assert torch.equal(point.sample(), MEAN)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(point.log_prob(MEAN), torch.zeros(2))
    cells = all_cells(table(2, PLAIN))
    torch.testing.assert_close(StandardNormal(PLAIN).kl(point, MEAN, cells), -Normal(0.0, 1.0).log_prob(MEAN).sum(1))
